"""The flow of `onefold demo`: payments, once each, and the revenue of every merchant and minute."""

import onefold as of

flow = of.Flow("revenue", epoch_rows=25_000)

payments = flow.read(
    of.files("events/*.jsonl", complete="rename"),
    schema={"event_id": "VARCHAR", "merchant": "VARCHAR", "amount": "DECIMAL(18,2)", "paid_at": "TIMESTAMP"},
    event_time="paid_at",
    lateness="10 minutes",
    name="payments",
)
valid = payments.where("amount > 0").dedup("event_id", within="1 day")
minutes = valid.window("1 minute").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")

valid.append(of.files("lake/payments"))
minutes.upsert(of.duckdb("revenue.duckdb").table("revenue_by_minute"), key=["merchant", "window_start"])
