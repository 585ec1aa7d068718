"""What Python's clients take for the same rows, called as clickdetect 1.18.4 calls them.

    peer.py prepare CLICKHOUSE POSTGRESQL FILE     makes the same table in each store
    peer.py clickhouse|postgresql|duckdb PLACE     prints {"rows", "seconds": [...], "processor": [...], "peak": bytes}

CLICKHOUSE is http://host:port, POSTGRESQL host:port, FILE a database of DuckDB.
"""

import asyncio
import json
import resource
import sys
import time
from urllib.parse import urlsplit

ROWS = 1_000_000
TIMES = 3
QUERY = "SELECT * FROM bench_rows"
LOGIN = dict(database="logs", username="watch", password="s3cret watch")


async def clickhouse(place):
    from clickhouse_connect import get_async_client

    at = urlsplit(place)
    return await get_async_client(
        database="default", host=at.hostname, username="default", password="secret", port=at.port, secure=False
    )


async def postgresql(place):
    import asyncpg

    host, port = place.split(":")
    return await asyncpg.create_pool(
        database=LOGIN["database"], host=host, port=int(port), user=LOGIN["username"], password=LOGIN["password"]
    )


async def of_clickhouse(client):
    result = await client.query(QUERY)
    return result.row_count, list(result.named_results())


async def of_postgresql(pool):
    async with pool.acquire() as connection:
        rows = await connection.fetch(QUERY)
        results = [dict(row) for row in rows]
        return len(results), results


async def of_duckdb(connection):
    relation = connection.sql(QUERY)
    columns = relation.columns
    results = [dict(zip(columns, row)) for row in relation.fetchall()]
    return len(results), results


async def prepare(at_clickhouse, at_postgresql, file):
    import duckdb

    client = await clickhouse(at_clickhouse)
    await client.command("DROP TABLE IF EXISTS bench_rows")
    await client.command(
        f"""CREATE TABLE bench_rows ENGINE = MergeTree ORDER BY id AS SELECT number AS id,
        toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number / 1000 AS time,
        concat('10.0.', toString(number % 256), '.', toString(number % 199)) AS source_ip,
        ['root', 'admin', 'www', 'backup'][1 + number % 4] AS user_name,
        concat('Failed password for invalid user ', toString(number), ' port ', toString(number % 65536), ' ssh2') AS message,
        toInt32(number % 65536) AS port FROM numbers({ROWS})"""
    )
    await client.close()
    pool = await postgresql(at_postgresql)
    await pool.execute(
        f"""DROP TABLE IF EXISTS bench_rows; CREATE TABLE bench_rows AS SELECT i AS id,
        timestamptz '2026-01-01 00:00:00+00' + i * interval '1 ms' AS time,
        '10.0.' || i % 256 || '.' || i % 199 AS source_ip,
        (ARRAY['root', 'admin', 'www', 'backup'])[1 + i % 4] AS user_name,
        'Failed password for invalid user ' || i || ' port ' || i % 65536 || ' ssh2' AS message,
        i % 65536 AS port FROM generate_series(0, {ROWS} - 1) AS t(i); ANALYZE bench_rows"""
    )
    await pool.close()
    with duckdb.connect(file) as connection:
        connection.execute(
            f"""CREATE OR REPLACE TABLE bench_rows AS SELECT i AS id,
            timestamp '2026-01-01 00:00:00' + to_milliseconds(i) AS time,
            '10.0.' || i % 256 || '.' || i % 199 AS source_ip,
            (['root', 'admin', 'www', 'backup'])[1 + i % 4] AS user_name,
            'Failed password for invalid user ' || i || ' port ' || i % 65536 || ' ssh2' AS message,
            (i % 65536)::INTEGER AS port FROM range({ROWS}) AS t(i)"""
        )


async def measure(kind, place):
    if kind == "clickhouse":
        client, query = await clickhouse(place), of_clickhouse
    elif kind == "postgresql":
        client, query = await postgresql(place), of_postgresql
    else:
        import duckdb

        client, query = duckdb.connect(place, read_only=True), of_duckdb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, processor = [], []
    for _ in range(TIMES):
        began, busy = time.monotonic(), time.process_time()
        count, rows = await query(client)
        seconds.append(time.monotonic() - began)
        processor.append(time.process_time() - busy)
        del rows
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"rows": count, "seconds": seconds, "processor": processor, "peak": peak}))
    if hasattr(client, "close"):
        closed = client.close()
        if asyncio.iscoroutine(closed):
            await closed


verb, *places = sys.argv[1:]
asyncio.run(prepare(*places) if verb == "prepare" else measure(verb, *places))
