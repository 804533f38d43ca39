"""Ways in which a value is written on its way: what attacks on the mask are made of."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from html.entities import html5
from textwrap import wrap
from urllib.parse import quote, quote_plus

from markupsafe import escape

Encoder = Callable[[str], str]
_NAMES = {text: name for name, text in sorted(html5.items(), reverse=True) if len(text) == 1 and name.endswith(";") and text not in "\n\t"}


def _csv(value: str) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([value])
    return out.getvalue().rstrip("\r\n")


def _of_bytes(write: Callable[[bytes], str], charset: str = "utf-8") -> Encoder:
    return lambda value: write(value.encode(charset))


def _units(value: str) -> list[int]:
    """The value's code units of UTF-16."""
    raw = value.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2)]


def _every_other(value: str) -> str:
    return "".join(
        quote(letter, safe="") if place % 2 else f"%{ord(letter):02x}" if letter.isascii() else letter for place, letter in enumerate(value)
    )


# How what a project can call writes a value: Jinja, SQL, Python, drivers and tools. Each of these keeps all of the value.
ENCODERS: Mapping[str, Encoder] = {
    "jinja |e": lambda value: str(escape(value)),
    "jinja |tojson": lambda value: (
        json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("'", "\\u0027")
    ),
    "json": json.dumps,
    "json in UTF-8": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json in json": lambda value: json.dumps({"a": json.dumps([json.dumps(value)])}),
    "json, each character": lambda value: "".join(f"\\u{unit:04X}" for unit in _units(value)),
    "html": html.escape,
    "html twice": lambda value: html.escape(html.escape(value)),
    "html, decimal": lambda value: "".join(f"&#{ord(letter)};" for letter in value),
    "html, hexadecimal": lambda value: "".join(f"&#x{ord(letter):X};" for letter in value),
    "html, leading zeros": lambda value: "".join(f"&#0{ord(letter):05};" for letter in value),
    "html, names": lambda value: "".join(f"&{_NAMES[letter]}" if letter in _NAMES else letter for letter in value),
    "xml": lambda value: (
        value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;").replace("'", "&apos;")
    ),
    "csv": _csv,
    "sql": lambda value: "'" + value.replace("'", "''") + "'",
    "sql, quoted twice": lambda value: "'" + value.replace("'", "''").replace("'", "''") + "'",
    "sql identifier": lambda value: '"' + value.replace('"', '""') + '"',
    "mysql": lambda value: "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"') + "'",
    "odbc": lambda value: "PWD={" + value.replace("}", "}}") + "};",
    "python": repr,
    "python, ascii": ascii,
    "python, bytes": _of_bytes(repr),
    "python, each byte": _of_bytes(lambda raw: "".join(f"\\x{byte:02x}" for byte in raw)),
    "python, octal": _of_bytes(lambda raw: "".join(f"\\{byte:03o}" for byte in raw)),
    "python, names": lambda value: value.replace("\\", "\\\\").encode("ascii", "namereplace").decode(),
    "shell": shlex.quote,
    "shell, in double quotes": lambda value: '"' + "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in value) + '"',
    "url": lambda value: quote(value, safe=""),
    "url, path": quote,
    "url, form": quote_plus,
    "url, lower case": lambda value: "".join(f"%{byte:02x}" if byte < 48 or byte > 122 else chr(byte) for byte in value.encode()).replace(
        "\\", "%5c"
    ),
    "url, twice": lambda value: quote(quote(value, safe=""), safe=""),
    "url, thrice": lambda value: quote(quote(quote(value, safe=""), safe=""), safe=""),
    "url, each byte": _of_bytes(lambda raw: "".join(f"%{byte:02X}" for byte in raw)),
    "url, in parts": _every_other,
    "url, javascript's": lambda value: "".join(
        chr(unit) if unit < 128 and chr(unit).isalnum() else f"%u{unit:04x}" for unit in _units(value)
    ),
    "capitals": str.upper,
    "small letters": str.lower,
    "swapped case": str.swapcase,
    "hexadecimal": _of_bytes(bytes.hex),
    "hexadecimal in capitals": _of_bytes(lambda raw: raw.hex().upper()),
    "hexadecimal with spaces": _of_bytes(lambda raw: raw.hex(" ")),
    "hexadecimal with colons": _of_bytes(lambda raw: raw.hex(":").upper()),
    "hexadecimal with 0x": _of_bytes(lambda raw: ", ".join(f"0x{byte:02x}" for byte in raw)),
    "hexadecimal of postgres": _of_bytes(lambda raw: f"\\x{raw.hex()}"),
    "hexadecimal in lines": _of_bytes(lambda raw: "\n".join(wrap(raw.hex(), 32))),
    "base64": _of_bytes(lambda raw: base64.b64encode(raw).decode()),
    "base64 for URLs": _of_bytes(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")),
    "base64 in the middle": lambda value: base64.b64encode(f"a user:{value}@host".encode()).decode(),
    "base64 in lines of 16": _of_bytes(lambda raw: "\n".join(wrap(base64.b64encode(raw).decode(), 16))),
    "base64 in lines of 64": lambda value: "\n".join(wrap(base64.b64encode(f"{'x' * 40}{value}{'y' * 40}".encode()).decode(), 64)),
    "base64 in lines of 76, indented": lambda value: (
        base64.encodebytes(f"{'x' * 50}{value}{'y' * 50}".encode()).decode().replace("\n", "\r\n    ")
    ),
    "base64 of base64": lambda value: base64.b64encode(base64.b64encode(value.encode())).decode(),
    "base64 of UTF-16": _of_bytes(lambda raw: base64.b64encode(raw).decode(), "utf-16-le"),
    "base32": _of_bytes(lambda raw: base64.b32encode(raw).decode()),
    "base32 in the middle": lambda value: base64.b32encode(f"abc{value}de".encode()).decode(),
    "UTF-16": _of_bytes(lambda raw: raw.decode("latin-1"), "utf-16-le"),
    "UTF-8 read as Latin-1": _of_bytes(lambda raw: raw.decode("latin-1")),
    "composed": lambda value: unicodedata.normalize("NFC", value),
    "decomposed": lambda value: unicodedata.normalize("NFD", value),
    "continued line": lambda value: value[:5] + "\\\n" + value[5:9] + "\\\r\n" + value[9:],
    "wrapped": lambda value: "\n    ".join((value[:6], value[6:11], value[11:])),
    "yaml": lambda value: "'" + value.replace("'", "''") + "'",
    "format string": lambda value: value.replace("{", "{{").replace("}", "}}").replace("%", "%%").replace("$", "$$"),
    "regular expression": lambda value: "".join(letter if letter.isalnum() else f"\\{letter}" for letter in value),
    "javascript, each character": lambda value: "".join(f"\\u{{{ord(letter):x}}}" for letter in value),
}

# Of these, each character is written by itself, so that a text can be cut in the middle of one.
BY_CHARACTER: Mapping[str, Encoder] = {
    **{
        name: ENCODERS[name]
        for name in (
            "jinja |e",
            "html twice",
            "html, decimal",
            "html, leading zeros",
            "html, names",
            "xml",
            "json, each character",
            "python, each byte",
            "python, octal",
            "url",
            "url, twice",
            "url, each byte",
            "url, javascript's",
            "capitals",
            "hexadecimal",
            "hexadecimal with spaces",
            "javascript, each character",
        )
    },
    "jinja |tojson, inside": lambda value: ENCODERS["jinja |tojson"](value)[1:-1],
    "json in json, inside": lambda value: json.dumps(json.dumps(value)[1:-1])[1:-1],
    "json in html, inside": lambda value: html.escape(json.dumps(value)[1:-1]),
    "sql, inside": lambda value: value.replace("'", "''").replace('"', '""'),
}
