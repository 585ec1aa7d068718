"""Records what clickdetect 1.18.4 itself sends for the rules and webhooks of this folder.

    python record.py CLICKDETECT

CLICKDETECT is its source. It runs unchanged but for three lines that keep it from Python before 3.14 and from its web
server; needed are aiohttp, jinja2, pyyaml, duckdb, apscheduler, colorlog, attrs, asyncpg, clickhouse-connect, redis,
watchfiles and the pysigma backends for opensearch, clickhouse and loki. It runs each rule of rules/ once, at
2026-01-01T00:05:00Z, against a receiver on loopback that answers 200 to everything (Telegram's host is led there too),
and a mail server that takes everything. `plain` is run twice, the second time with verdict.json as what its plugin
clickagentic says.

Writes alerts.json (what its templates saw, by rule) and ../KIND/clickdetect.json: by webhook its settings and, by rule, the
request (`null` where it sent none).
"""
import asyncio
import datetime
import json
import os
import re
import shutil
import smtplib
import socketserver
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOW = 1767225900.0
# What differs from one HTTP client to the next.
DROPPED = {"host", "user-agent", "accept", "accept-encoding", "content-length", "connection"}
ANSWER = {"ok": True, "result": {"message_id": 1, "chat": {"id": 1}}, "status": "success", "data": {"alert_id": 1}, "id": "1", "_id": "~1", "number": 1}


def patched(source, into):
    """A copy of clickdetect that runs on an older Python and without its web server."""
    shutil.copytree(source / "clickdetect", into / "clickdetect")
    (into / "clickdetect/__init__.py").write_text("")
    for file, old, new in [
        ("detector", "except FileNotFoundError, FileExistsError:", "except (FileNotFoundError, FileExistsError):"),
        ("config", "version = get_version(app_name)", 'version = "1.18.4"'),
    ]:
        path = into / f"clickdetect/detector/{file}.py"
        text = path.read_text()
        assert old in text, (file, old)
        path.write_text(text.replace(old, new))
    (into / "databricks").mkdir()
    (into / "databricks/__init__.py").write_text("sql = None\n")


class Mail(socketserver.StreamRequestHandler):
    """Takes every mail; knows of SMTP what smtplib needs."""

    taken = []

    def say(self, text):
        self.wfile.write((text + "\r\n").encode())

    def handle(self):
        self.say("220 fake")
        data, envelope = None, {"from": None, "to": []}
        while line := self.rfile.readline():
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            verb = text.upper()
            if data is not None:
                if text == ".":
                    Mail.taken.append({**envelope, "raw": "".join(data)})
                    data = None
                    self.say("250 ok")
                else:
                    data.append((text[1:] if text.startswith("..") else text) + "\r\n")
            elif verb.startswith("EHLO"):
                self.say("250-fake\r\n250-AUTH PLAIN\r\n250-SMTPUTF8\r\n250 8BITMIME")
            elif verb.startswith("AUTH PLAIN"):
                self.say("235 ok")
            elif verb.startswith("MAIL FROM"):
                envelope["from"] = text[10:]
                self.say("250 ok")
            elif verb.startswith("RCPT TO"):
                envelope["to"].append(text[8:])
                self.say("250 ok")
            elif verb == "DATA":
                data = []
                self.say("354 go")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


async def run(rule, verdict):
    """What clickdetect's templates saw of `rule`, and the requests it sent."""
    import aiohttp
    import yaml
    from aiohttp import web
    from clickdetect.detector import detector as detector_module
    from clickdetect.detector import utils
    from clickdetect.detector.hooks import EventEnum
    from clickdetect.detector.runner import Runner

    requests, alerts = [], []

    async def take(request):
        text = (await request.read()).decode("utf-8", "replace")
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in DROPPED}
        one = {"method": request.method, "path": request.raw_path, "headers": headers}
        try:
            one["json"] = json.loads(text)
        except ValueError:
            one["text"] = text
        requests.append(one)
        return web.json_response(ANSWER)

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", take)
    server = web.AppRunner(app)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    host = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    mail = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    mail.daemon_threads = True
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    smtplib.SMTP.starttls = lambda self, *_, **__: (220, b"")  # The fake has no certificate.

    ask = aiohttp.ClientSession._request

    async def led(self, method, url, **rest):
        return await ask(self, method, str(url).replace("https://api.telegram.org", f"http://{host}"), **rest)

    aiohttp.ClientSession._request = led

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW, tz)

    detector_module.datetime = Fixed
    text = (HERE / "runner.yml").read_text()
    for name, value in [("@RECEIVER@", f"http://{host}"), ("@SMTP@", str(mail.server_address[1])), ("@RULE@", str(rule))]:
        text = text.replace(name, value)
    runner = await Runner(yaml.safe_load(text)).init()

    async def hook(template_data, **_):
        if verdict is not None:
            template_data["clickagentic"] = verdict
        alerts.append(json.loads(json.dumps(template_data, default=utils.json_serializer)))
        return {"template_data": template_data}

    runner.plugin_system.hooks.register(EventEnum.on_rule_triggered, hook)
    for detector in runner.detectors:
        await detector.load_sigma()
        await detector.callback()
        while sending := [task for task in asyncio.all_tasks() if "call_webhook" in repr(task)]:
            await asyncio.wait(sending)
    await runner.close()
    requests += [{"method": "SMTP", "path": "", **one} for one in Mail.taken]
    (alert,) = alerts
    told = json.dumps([alert, requests]).replace(json.dumps(str(rule))[1:-1], f"/rules/{rule.name}")
    return json.loads(told.replace(host, "receiver.example"))


def main():
    with tempfile.TemporaryDirectory() as copy:
        patched(Path(sys.argv[1]), Path(copy))
        alerts, kinds = {}, {}
        import yaml

        config = yaml.safe_load((HERE / "runner.yml").read_text().replace("@RECEIVER@", "http://receiver.example"))
        for name, hook in config["webhooks"].items():
            kinds.setdefault(hook["type"], {})[name] = {"settings": hook, "requests": {}}
        rules = sorted((HERE / "rules").glob("*.yml"))
        runs = [(rule.stem, rule, None) for rule in rules] + [("verdict", HERE / "rules/plain.yml", "verdict.json")]
        for case, rule, verdict in runs:
            # A process for each: clickdetect keeps state in its modules.
            command = [sys.executable, __file__, "--one", str(rule), verdict or ""]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": copy})
            alerts[case], requests = json.loads(out.stdout)
            for hooks in kinds.values():
                for name, hook in hooks.items():
                    named = re.compile(rf"(^|[/:]){re.escape(name)}([/?]|$)")
                    sent = [one for one in requests if one["method"] != "GET" and named.search(one["path"])]
                    assert len(sent) <= 1, (name, sent)
                    hook["requests"][case] = sent[0] if sent else None
    write(HERE / "alerts.json", alerts)
    for kind, hooks in kinds.items():
        write(HERE.parent / kind / "clickdetect.json", hooks)


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


if sys.argv[1] == "--one":
    verdict = json.loads((HERE / sys.argv[3]).read_text()) if sys.argv[3] else None
    print(json.dumps(asyncio.run(run(Path(sys.argv[2]), verdict))))
    os._exit(0)
main()
