"""Payments from JSON lines into DuckDB, each exactly once. Edit the schema, the expressions and the targets."""

import onefold as of

flow = of.Flow("revenue")

payments = flow.read(
    of.files("payments/*.jsonl"),
    schema={"event_id": "VARCHAR", "merchant": "VARCHAR", "amount": "DECIMAL(18,2)", "paid_at": "TIMESTAMP"},
    event_time="paid_at",
    lateness="10 minutes",
)
valid = payments.where("amount > 0").dedup("event_id", within="7 days")
hourly = valid.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")

database = of.duckdb("revenue.duckdb")
valid.append(database.table("payments"))
hourly.upsert(database.table("revenue_hourly"), key=["merchant", "window_start"])
