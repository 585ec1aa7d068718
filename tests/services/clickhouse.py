#!/usr/bin/env python3
"""A test server that speaks ClickHouse's HTTP interface over a real ClickHouse engine.

The engine is `chdb-core` from PyPI, which is ClickHouse built as a Python module: the SQL
dialect, functions, types, formats, settings, limits and error texts are ClickHouse's own. What
this file adds is the part the module leaves out, the HTTP server in front of it, so that an
unmodified client (a driver, curl) can be tested end to end without a ClickHouse installation.

    pip install --no-deps chdb-core  # or chdb-core-lite with pyarrow: smaller, a little older
    pip install lz4 zstandard        # only for clients that compress with lz4 or zstd

    clickhouse_http.py --port 0 --user default:secret --user reader:pw:readonly \\
                       --init schema.sql --query-log queries.jsonl

The first line on stdout is `listening on http://127.0.0.1:PORT`, printed once requests are
served; with `--port 0` that is how the caller learns the port. SIGTERM and SIGINT end it with
status 0. It listens on loopback unless `--host` says otherwise.

What it does as the server does
  * `GET`/`POST`/`HEAD` on `/` and `/query`; `/ping` and `/replicas_status` answer `Ok.`.
  * The statement comes from `?query=`, from the body, or from both with a line feed between
    them; a multipart form may carry `query` and `param_*`. A method other than POST is
    read-only. One statement a request.
  * The credentials come from X-ClickHouse-User/-Key, from Basic authentication or from
    `?user=&password=`. No two of these together; a wrong one is 403 with code 516.
  * `database`, `default_format` (or X-ClickHouse-Format/-Database), `param_NAME`, `query_id`,
    `session_id` with `session_timeout` and `session_check`, `wait_end_of_query`, `readonly`;
    any other parameter is a setting for that request, and an unknown one is an error.
  * An INSERT may carry its data inline or in the body in any input format.
  * Request bodies may be chunked, sent with a Content-Encoding, or made of ClickHouse's own
    blocks (`decompress=1`). Responses follow Accept-Encoding.
  * An error is `Code: N. DB::Exception: TEXT (NAME) (version V (official build))` with
    X-ClickHouse-Exception-Code and the status the server gives that code. An error that comes
    after more than BUFFER_BYTES of output arrives as it does from a server of 25.11 or later:
    in a 200 response, at its end, between `__exception__` markers, with the connection broken.
    `SELECT throwIf(number = 4000000) FROM numbers(5000000) SETTINGS max_threads = 1` makes one.

What it does not do
  * The output is produced whole before the first byte is sent, so a client never sees a slow
    trickle; `sleepEachRow` delays the whole answer.
  * Users and passwords are this file's, not the engine's: `currentUser()` is always `default`,
    and there are no roles, quotas or grants (a user marked `readonly` runs with `readonly=1`).
  * A query goes on when its client leaves; bound it with `max_execution_time`, or end it with
    `KILL QUERY WHERE query_id = '...'`.
  * `file()` reads any file this process may read: there is no user_files folder.
  * No native TCP port, no external tables in a form, no `compress=1`, no progress headers.
    `client_protocol_version` is ignored, as a server older than the setting would.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import email.parser
import email.policy
import gzip
import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import uuid
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb

try:
    import lz4.block
    import lz4.frame
except ImportError:
    lz4 = None
try:
    import zstandard
except ImportError:
    zstandard = None

# A server holds back this much output before it commits to a status line.
BUFFER_BYTES = 1 << 20

# Request parameters that are not settings.
TRANSPORT_PARAMETERS = frozenset(
    """
    query database default_format user password quota_key role query_id
    session_id session_timeout session_check close_session
    compress decompress buffer_size wait_end_of_query stacktrace
    client_protocol_version readonly enable_http_compression
    """.split()
)

# Statements that a read-only request may run.
READ_STATEMENTS = frozenset("SELECT WITH FROM SHOW DESCRIBE DESC EXISTS EXPLAIN SET USE (".split())

# The status for an error code; 500 for those not listed.
STATUS_BY_CODE = {
    194: 401,  # REQUIRED_PASSWORD
    # UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED, SET_NON_GRANTED_ROLE, AUTHENTICATION_FAILED
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    # BAD_ARGUMENTS, SYNTAX_ERROR, the CANNOT_PARSE_* family, type and column errors
    **dict.fromkeys(
        (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321)
        + (376, 427, 441, 675, 676), 400),
    # UNKNOWN_TABLE, _FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _DATABASE, _SETTING, _FORMAT, ...
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    159: 408,  # TIMEOUT_EXCEEDED
    381: 411,  # HTTP_LENGTH_REQUIRED
    229: 413,  # QUERY_IS_TOO_LARGE
    779: 415,  # UNSUPPORTED_MEDIA_TYPE
    48: 501,  # NOT_IMPLEMENTED
    # CANNOT_OPEN_FILE, SOCKET_TIMEOUT, CANNOT_SCHEDULE_TASK
    **dict.fromkeys((76, 209, 439), 503),
}  # fmt: skip

CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
}


class QueryError(Exception):
    """An error to report to the client, with a ClickHouse error code."""

    def __init__(self, code: int, message: str, name: str = "", partial: bytes = b""):
        super().__init__(message)
        self.code, self.name, self.message, self.partial = code, name, message, partial

    @classmethod
    def from_engine(cls, error: Exception, partial: bytes = b"") -> QueryError:
        """Take apart the engine's text, which may have a prefix of chdb's or a version after it."""
        text = str(error)
        found = re.search(r"Code: (\d+)\. (.*)", text, re.S)
        if not found:
            return cls(1002, text, "UNKNOWN_EXCEPTION", partial)
        message = re.sub(r"\s*\(version [^()]*(\([^()]*\))?\)\s*$", "", found[2]).strip()
        message = message.removeprefix("DB::Exception: ")
        return cls(int(found[1]), message, "", partial)

    def body(self, version: str) -> str:
        name = f" ({self.name})" if self.name else ""
        return (
            f"Code: {self.code}. DB::Exception: {self.message}{name}"
            f" (version {version} (official build))\n"
        )

    def status(self) -> int:
        return STATUS_BY_CODE.get(self.code, 500)


# --- statements ----------------------------------------------------------------------------

_TOKEN = re.compile(
    rb"""(?P<space>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?(?:\*/|\Z))
       | (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`
                   |\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
       | (?P<word>[A-Za-z_]\w*)
       | (?P<other>\d[\w.]*|.)""",
    re.S | re.X,
)


@dataclass
class Statement:
    """What the HTTP layer has to know of a statement; the engine does the real parsing."""

    head: bytes  # what goes to the engine as SQL
    kind: str  # its first word, upper case, or "("
    output_format: str | None = None
    input_format: str | None = None  # set for an INSERT whose data is in `data`
    data: bytes = b""

    def is_read(self) -> bool:
        return self.kind in READ_STATEMENTS

    @classmethod
    def parse(cls, text: bytes) -> Statement:
        kind, depth, previous, end = "", 0, "", len(text)
        format_at, format_name, after_format = -1, None, ""
        for token in _TOKEN.finditer(text):
            if token["space"]:
                continue
            raw = token[0]
            word = raw.decode("latin-1").upper() if token["word"] else ""
            if not kind:
                kind = word or raw.decode("latin-1")
            if depth == 0 and raw == b";":
                end = token.start()
                if _significant(text[token.end() :]):
                    raise QueryError(
                        62,
                        "Syntax error (Multi-statements are not allowed): failed at position"
                        f" {end + 1} (end of query)",
                        "SYNTAX_ERROR",
                    )
                break
            if previous == "INTO" and word == "OUTFILE":
                raise QueryError(358, "INTO OUTFILE is not allowed", "INTO_OUTFILE_NOT_ALLOWED")
            if previous == "FROM" and word == "INFILE":
                raise QueryError(
                    78, "Query has infile and was send directly to server", "UNKNOWN_TYPE_OF_QUERY"
                )
            depth += (raw == b"(") - (raw == b")")
            if depth == 0 and kind == "INSERT":
                if word in ("SELECT", "WITH", "WATCH"):
                    kind = "INSERT SELECT"
                elif word == "VALUES":
                    return cls(text, kind)  # the engine reads the rows that follow
                elif word and previous == "FORMAT":
                    # The data begins on the next line, or after the blanks on this one.
                    start = re.compile(rb"[ \t\f]*\r?\n?").match(text, token.end()).end()
                    name = raw.decode("latin-1")
                    return cls(text[:format_at], kind, input_format=name, data=text[start:])
            elif depth == 0 and word and previous == "FORMAT":
                format_name, after_format = raw.decode("latin-1"), ""
            elif format_name and not after_format:
                # Only SETTINGS may follow; otherwise that FORMAT was a column's name.
                after_format = word
                if word != "SETTINGS":
                    format_name = None
            if word == "FORMAT" and depth == 0:
                format_at = token.start()
            previous = word
        if not kind:
            raise QueryError(62, "Syntax error: failed at position 1: Empty query", "SYNTAX_ERROR")
        return cls(text[:end], kind, output_format=format_name)


def _significant(text: bytes) -> bool:
    """Whether there is more in `text` than blanks, comments and semicolons."""
    return any(not t["space"] and t[0] != b";" for t in _TOKEN.finditer(text))


def quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


# --- the engine ----------------------------------------------------------------------------


@dataclass
class Session:
    connection: object
    lock: threading.Lock = field(default_factory=threading.Lock)
    timeout: float = 60.0
    last_used: float = field(default_factory=time.monotonic)


@dataclass
class Result:
    body: bytes
    format: str
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_ns: int = 0

    def summary(self) -> str:
        fields = ("read_rows", "read_bytes", "written_rows", "written_bytes", "elapsed_ns")
        return json.dumps(
            {name: str(getattr(self, name)) for name in fields}, separators=(",", ":")
        )


class Engine:
    """chdb, one connection a request or a session, so that settings and databases stay apart."""

    def __init__(self, path: str):
        self._path = path
        self._keep_alive = chdb.connect(path)  # the data of ":memory:" lives as long as this
        self._sessions: dict[tuple[str, str], Session] = {}
        self._lock = threading.Lock()
        self.version = self._text("SELECT version()")
        self.timezone = self._text("SELECT timezone()")

    def _text(self, sql: str) -> str:
        return self._keep_alive.query(sql, "TSVRaw").bytes().decode().strip()

    def script(self, sql: str) -> None:
        """Run an init file, which may hold several statements."""
        self._keep_alive.query(sql, "Null")

    @contextlib.contextmanager
    def connection(self, user: str, session_id: str | None, timeout: float, check: bool):
        if session_id is None:
            connection = chdb.connect(self._path)
            try:
                yield connection
            finally:
                connection.close()
            return
        session = self._session((user, session_id), timeout, check)
        if not session.lock.acquire(blocking=False):
            raise QueryError(
                373, f"Session {session_id} is locked by a concurrent client", "SESSION_IS_LOCKED"
            )
        try:
            yield session.connection
        finally:
            session.last_used = time.monotonic()
            session.lock.release()

    def _session(self, key: tuple[str, str], timeout: float, check: bool) -> Session:
        with self._lock:
            now = time.monotonic()
            for old, session in list(self._sessions.items()):
                if now - session.last_used > session.timeout and not session.lock.locked():
                    self._sessions.pop(old).connection.close()
            if key not in self._sessions:
                if check:
                    raise QueryError(372, f"Session {key[1]} not found", "SESSION_NOT_FOUND")
                self._sessions[key] = Session(chdb.connect(self._path))
            session = self._sessions[key]
            session.timeout = timeout
            return session

    def close(self) -> None:
        for session in self._sessions.values():
            session.connection.close()
        self._keep_alive.close()


def own_query_id(sql: str, query_id: str) -> str:
    """The engine gives each query an id of its own: the client's goes along as a comment, and a
    KILL by the client's id looks for that."""
    killed = re.fullmatch(
        r"\s*KILL\s+QUERY\s+WHERE\s+query_id\s*=\s*'([\w-]+)'\s*(\w*)\s*", sql, re.I
    )
    if killed:
        return f"KILL QUERY WHERE startsWith(query, '/* {killed[1]} */') {killed[2]}"
    return f"/* {query_id} */ {sql}"


def run_statement(
    connection, statement: Statement, output_format: str, parameters: dict, query_id: str
) -> Result:
    """Run one statement on a prepared connection."""
    started = time.monotonic_ns()
    try:
        if statement.input_format is not None:
            body, rows = b"", _insert(connection, statement)
        else:
            sql = own_query_id(statement.head.decode(), query_id)
            done = connection.query(sql, output_format, params=parameters)
            body = done.bytes() if len(done) else b""
            rows = dict(
                read_rows=done.storage_rows_read(),
                read_bytes=done.storage_bytes_read(),
                written_rows=done.rows_written() if hasattr(done, "rows_written") else 0,
                written_bytes=done.bytes_written() if hasattr(done, "bytes_written") else 0,
            )
    except UnicodeDecodeError:  # a real server takes any bytes
        raise QueryError(48, "Only UTF-8 is supported in SQL here", "NOT_IMPLEMENTED") from None
    except (RuntimeError, chdb.ChdbError) as error:
        # What the query had written before it failed comes out with the next result; take it
        # from there, both to report it and to leave a session's connection clean.
        partial = b""
        with contextlib.suppress(RuntimeError, chdb.ChdbError):
            partial = connection.query("SELECT 1", "Null").bytes()
        raise QueryError.from_engine(error, partial) from None
    return Result(body, output_format, elapsed_ns=time.monotonic_ns() - started, **rows)


def _insert(connection, statement: Statement) -> dict:
    """Run an INSERT whose data came apart from it; the counts of what was written."""
    sql = statement.head.decode().rstrip()
    if not hasattr(connection, "send_insert"):  # chdb before 26.9
        with tempfile.NamedTemporaryFile() as file:
            file.write(statement.data)
            file.flush()
            connection.query(
                f"{sql} FROM INFILE {quote(file.name)} FORMAT {statement.input_format}", "Null"
            )
        return {}
    with connection.send_insert(sql, statement.input_format) as inserter:
        for at in range(0, len(statement.data), BUFFER_BYTES):
            inserter.append(statement.data[at : at + BUFFER_BYTES])
        done = inserter.finish()
    return dict(written_rows=done.rows_written, written_bytes=done.bytes_written)


# --- compression ---------------------------------------------------------------------------


def decode_body(data: bytes, encoding: str) -> bytes:
    """Undo a request's Content-Encoding."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return data
            case "gzip":
                return gzip.decompress(data)
            case "deflate":
                return zlib.decompress(data)
            case "lz4" if lz4:
                return lz4.frame.decompress(data)
            case "zstd" if zstandard:
                return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except Exception as error:  # each library has its own
        raise QueryError(271, f"Cannot decompress: {error}", "CANNOT_DECOMPRESS") from None
    raise QueryError(89, f"Unknown compression method: {encoding}", "UNKNOWN_COMPRESSION_METHOD")


def decode_blocks(data: bytes) -> bytes:
    """Undo `decompress=1`: blocks of checksum (16 bytes, not checked), method, sizes, payload."""
    out, at = [], 0
    while at < len(data):
        method = data[at + 16] if len(data) >= at + 25 else None
        packed = int.from_bytes(data[at + 17 : at + 21], "little")
        size = int.from_bytes(data[at + 21 : at + 25], "little")
        payload = data[at + 25 : at + 16 + packed]
        if method is None or packed < 9 or len(payload) != packed - 9:
            raise QueryError(271, "Cannot decompress: truncated block", "CANNOT_DECOMPRESS")
        try:
            if method == 0x02:
                out.append(payload)
            elif method == 0x82 and lz4:
                out.append(lz4.block.decompress(payload, uncompressed_size=size))
            elif method == 0x90 and zstandard:
                out.append(zstandard.ZstdDecompressor().decompress(payload, max_output_size=size))
            else:
                raise QueryError(
                    89, f"Unknown codec family code: {method}", "UNKNOWN_COMPRESSION_METHOD"
                )
        except (ValueError, RuntimeError, OSError) as error:
            raise QueryError(271, f"Cannot decompress: {error}", "CANNOT_DECOMPRESS") from None
        at += 16 + packed
    return b"".join(out)


def response_encoder(accept: str):
    """A (name, compress, flush) for the client's Accept-Encoding, or None."""
    accepted = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    if "lz4" in accepted and lz4:
        compressor = lz4.frame.LZ4FrameCompressor()
        begin = [compressor.begin()]
        return (
            "lz4",
            lambda b: (begin.pop() if begin else b"") + compressor.compress(b),
            (lambda: (begin.pop() if begin else b"") + compressor.flush()),
        )
    if "gzip" in accepted:
        compressor = zlib.compressobj(wbits=31)
        return "gzip", compressor.compress, compressor.flush
    if "deflate" in accepted:
        compressor = zlib.compressobj()
        return "deflate", compressor.compress, compressor.flush
    if "zstd" in accepted and zstandard:
        compressor = zstandard.ZstdCompressor().compressobj()
        return "zstd", compressor.compress, compressor.flush
    return None


# --- HTTP ----------------------------------------------------------------------------------


@dataclass
class User:
    password: str
    readonly: bool = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_HEAD = do_GET

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.parameters = dict(parse_qsl(url.query, keep_blank_values=True))
        self.query_id = self.parameters.get("query_id") or str(uuid.uuid4())
        self.session_id = self.parameters.get("session_id") or None
        self.logged: dict = {}
        code = 0
        try:
            body = self._read_body()
            if url.path in ("/ping", "/replicas_status") or (
                url.path == "/" and self.command != "POST" and "query" not in self.parameters
            ):
                return self._send(200, b"Ok.\n", "text/html; charset=UTF-8")
            if url.path not in ("/", "/query"):
                text = f"There is no handle {self.path}\n\nUse / or /ping for health checks.\n"
                return self._send(404, text.encode(), "text/plain; charset=UTF-8")
            result = self._query(body)
            self._send_result(result)
        except QueryError as error:
            code = error.code
            self._send_error(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            if self.logged:
                self.server.log_query({**self.logged, "query_id": self.query_id, "code": code})

    # The request

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(iter(self._read_chunk, b""))
        length = self.headers.get("Content-Length")
        if length is None:
            if self.command == "POST":
                self.close_connection = True
                raise QueryError(
                    381,
                    "The Transfer-Encoding is not chunked and there is no Content-Length header"
                    " for POST request",
                    "HTTP_LENGTH_REQUIRED",
                )
            return b""
        return self.rfile.read(int(length))

    def _read_chunk(self) -> bytes:
        size = int(self.rfile.readline(1024).split(b";")[0].strip() or b"0", 16)
        data = self.rfile.read(size)
        if size:
            self.rfile.readline(8)
            return data
        while self.rfile.readline(8192).strip():
            pass  # trailers
        return b""

    def _user(self) -> tuple[str, User]:
        given = []
        if "X-ClickHouse-User" in self.headers or "X-ClickHouse-Key" in self.headers:
            given.append(
                (
                    self.headers.get("X-ClickHouse-User", "default"),
                    self.headers.get("X-ClickHouse-Key", ""),
                )
            )
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                name, _, password = base64.b64decode(value).decode().partition(":")
                given.append((name or "default", password))
        if "user" in self.parameters or "password" in self.parameters:
            given.append(
                (self.parameters.get("user", "default"), self.parameters.get("password", ""))
            )
        if len(given) > 1:
            raise QueryError(
                516,
                "Invalid authentication: it is not allowed to use several authentication methods"
                " simultaneously",
                "AUTHENTICATION_FAILED",
            )
        name, password = given[0] if given else ("default", "")
        user = self.server.users.get(name)
        if user is None or user.password != password:
            raise QueryError(
                516,
                f"{name}: Authentication failed: password is incorrect, or there is no user with"
                " such name.",
                "AUTHENTICATION_FAILED",
            )
        return name, user

    def _form(self, body: bytes) -> bytes | None:
        """The statement in a multipart form, whose `param_*` fields join the parameters."""
        kind = self.headers.get("Content-Type", "")
        if not kind.lower().startswith("multipart/form-data"):
            return None
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        query = b""
        for part in form.iter_parts():
            name = part.get_param("name", header="content-disposition") or ""
            value = part.get_payload(decode=True) or b""
            if part.get_filename() is not None:
                raise QueryError(48, "External tables are not supported here", "NOT_IMPLEMENTED")
            if name == "query":
                query = value
            else:
                self.parameters[name] = value.decode()
        return query

    def _query(self, body: bytes) -> Result:
        name, user = self._user()
        parameters = self.parameters
        body = decode_body(body, self.headers.get("Content-Encoding", ""))
        if parameters.get("decompress") == "1":
            body = decode_blocks(body)
        if parameters.get("compress") == "1":
            raise QueryError(48, "compress=1 is not supported here", "NOT_IMPLEMENTED")
        form = self._form(body)
        body = b"" if form is not None else body
        text = parameters.get("query", "").encode() + (form or b"")
        statement = self._statement(text, body)
        self.logged = {
            "time": time.time(),
            "method": self.command,
            "user": name,
            "agent": self.headers.get("User-Agent", ""),
            "parameters": {k: v for k, v in parameters.items() if k not in ("query", "password")},
            "statement": statement.head.decode("utf-8", "replace"),
            "input_format": statement.input_format,
            "input_bytes": len(statement.data),
        }
        readonly = 1 if user.readonly else int(parameters.get("readonly") or 0) or (
            2 if self.command != "POST" else 0
        )
        if readonly and not statement.is_read():
            hint = (
                " For queries over HTTP, method GET implies readonly. You should use method POST"
                " for modifying queries." if self.command != "POST" else ""
            )  # fmt: skip
            raise QueryError(
                164, f"{name}: Cannot execute query in readonly mode.{hint}", "READONLY"
            )
        settings = {
            k: v
            for k, v in parameters.items()
            if k not in TRANSPORT_PARAMETERS and not k.startswith("param_")
        }
        changed = [*settings, *(["readonly"] if parameters.get("readonly", "1") != "1" else [])]
        if changed and readonly == 1:
            raise QueryError(
                164, f"Cannot modify '{changed[0]}' setting in readonly mode", "READONLY"
            )
        output_format = (
            statement.output_format
            or self.headers.get("X-ClickHouse-Format")
            or parameters.get("default_format")
            or "TabSeparated"
        )
        database = self.headers.get("X-ClickHouse-Database") or parameters.get("database")
        timeout = float(parameters.get("session_timeout") or 60)
        check = parameters.get("session_check") == "1"
        with (
            self.server.slot(),
            self.server.engine.connection(name, self.session_id, timeout, check) as connection,
        ):
            # A session outlives the request, so what is set for the request is put back.
            before = connection.query("SELECT currentDatabase()", "TSVRaw").bytes() if (
                database and self.session_id) else b""  # fmt: skip
            try:
                self._prepare(connection, settings, database, readonly)
                return run_statement(
                    connection,
                    statement,
                    output_format,
                    {k[6:]: v for k, v in parameters.items() if k.startswith("param_")},
                    self.query_id,
                )
            finally:
                if self.session_id:
                    self._restore(connection, settings, before.decode().rstrip("\n"), statement)

    def _prepare(self, connection, settings: dict, database: str | None, readonly: int) -> None:
        try:
            for name, value in settings.items():
                if not re.fullmatch(r"\w+", name):
                    raise QueryError(115, f"Unknown setting '{name}'", "UNKNOWN_SETTING")
                connection.query(f"SET {name} = {quote(value)}", "Null")
            if database:
                connection.query(f"USE {quote_name(database)}", "Null")
            if readonly and not self.session_id:
                connection.query(f"SET readonly = {readonly}", "Null")
        except (RuntimeError, chdb.ChdbError) as error:
            raise QueryError.from_engine(error) from None

    @staticmethod
    def _restore(connection, settings: dict, database: str, statement: Statement) -> None:
        with contextlib.suppress(RuntimeError, chdb.ChdbError):
            for name in settings:
                connection.query(f"SET {name} = DEFAULT", "Null")
            if database and statement.kind != "USE":
                connection.query(f"USE {quote_name(database)}", "Null")

    @staticmethod
    def _statement(text: bytes, body: bytes) -> Statement:
        """The request's statement; when it is complete without the body, the body is its data."""
        if text and body:
            with contextlib.suppress(QueryError):
                statement = Statement.parse(text)
                if statement.input_format is not None:
                    statement.data += body
                    return statement
        return Statement.parse(text + (b"\n" if text and body else b"") + body)

    # The response

    def _headers(self, status: int, content_type: str) -> None:
        self.send_response_only(status)
        self.log_request(status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", content_type)
        self.send_header("X-ClickHouse-Server-Display-Name", socket.gethostname())
        self.send_header("X-ClickHouse-Query-Id", self.query_id)
        self.send_header("X-ClickHouse-Timezone", self.server.engine.timezone)
        self.send_header("Keep-Alive", "timeout=30")

    def _send(self, status: int, body: bytes, content_type: str, *extra: tuple[str, str]) -> None:
        self._headers(status, content_type)
        for header in extra:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_result(self, result: Result, error: QueryError | None = None) -> None:
        """Send the output, in chunks; with `error`, the output up to where the query failed."""
        tag = uuid.uuid4().hex[:16]
        encoder = None
        if self.parameters.get("enable_http_compression", "1") not in ("0", "false"):
            encoder = response_encoder(self.headers.get("Accept-Encoding", ""))
        name = result.format
        json_lines = name.startswith("JSON") and "EachRow" in name
        default = (
            "application/octet-stream" if not name.startswith("JSON") else CONTENT_TYPES["JSON"]
        )
        kind = (
            "application/x-ndjson; charset=UTF-8"
            if json_lines
            else CONTENT_TYPES.get(name, default)
        )
        self._headers(200, kind)
        self.send_header("X-ClickHouse-Format", name)
        self.send_header("X-ClickHouse-Exception-Tag", tag)
        self.send_header("X-ClickHouse-Summary", result.summary())
        if encoder:
            self.send_header("Content-Encoding", encoder[0])
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        encode, flush = encoder[1:] if encoder else ((lambda b: b), (lambda: b""))
        for at in range(0, len(result.body), BUFFER_BYTES):
            self._chunk(encode(result.body[at : at + BUFFER_BYTES]))
        if error is None:
            self._chunk(flush())
            self.wfile.write(b"0\r\n\r\n")
            return
        text = error.body(self.server.engine.version).encode()
        trailer = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (
            tag.encode(), text, len(text), tag.encode(),
        )  # fmt: skip
        self._chunk(encode(trailer) + flush())
        self.wfile.flush()
        self.close_connection = True  # without the last chunk: the response is cut short

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send_error(self, error: QueryError) -> None:
        whole = self.parameters.get("wait_end_of_query") == "1"
        if len(error.partial) > BUFFER_BYTES and not whole:
            name = self.parameters.get("default_format", "TabSeparated")
            return self._send_result(Result(error.partial, name), error)
        body = error.body(self.server.engine.version).encode()
        self._send(
            error.status(), body, "text/plain; charset=UTF-8",
            ("X-ClickHouse-Exception-Code", str(error.code)),
        )  # fmt: skip

    def log_message(self, format: str, *args) -> None:
        if self.server.verbose:
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, engine: Engine, users: dict[str, User], options):
        super().__init__(address, Handler)
        self.engine, self.users, self.verbose = engine, users, options.verbose
        self._slots = threading.BoundedSemaphore(options.max_concurrent_queries)
        self._log = open(options.query_log, "a", encoding="utf-8") if options.query_log else None
        self._log_lock = threading.Lock()

    def log_query(self, entry: dict) -> None:
        if self._log:
            with self._log_lock:
                self._log.write(json.dumps(entry) + "\n")
                self._log.flush()

    @contextlib.contextmanager
    def slot(self):
        if not self._slots.acquire(blocking=False):
            raise QueryError(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")
        try:
            yield
        finally:
            self._slots.release()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that left is no news
            super().handle_error(request, client_address)


def parse_user(text: str) -> tuple[str, User]:
    name, _, rest = text.partition(":")
    password, _, mode = rest.partition(":")
    return name, User(password, readonly=mode == "readonly")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123, help="0 picks a free port")
    parser.add_argument("--path", help="a folder for the data; without it, a temporary one")
    parser.add_argument(
        "--user", action="append", metavar="NAME:PASSWORD[:readonly]", help="default: 'default:'"
    )
    parser.add_argument("--init", action="append", default=[], metavar="FILE.sql")
    parser.add_argument("--query-log", metavar="FILE", help="append one JSON line a query")
    parser.add_argument("--max-concurrent-queries", type=int, default=100)
    parser.add_argument("--tls-cert", metavar="PEM", help="serve HTTPS (needs --tls-key)")
    parser.add_argument("--tls-key", metavar="PEM")
    parser.add_argument("--verbose", action="store_true", help="log each request on stderr")
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        path = options.path or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="clickhouse-http-", ignore_cleanup_errors=True)
        )
        engine = Engine(os.path.abspath(path))
        stack.callback(engine.close)
        for name in options.init:
            with open(name, encoding="utf-8") as file:
                engine.script(file.read())
        users = dict(map(parse_user, options.user or ["default:"]))
        server = Server((options.host, options.port), engine, users, options)
        scheme = "http"
        if options.tls_cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.tls_cert, options.tls_key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"listening on {scheme}://{options.host}:{server.server_port}", flush=True)
        server.serve_forever(poll_interval=0.1)
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
