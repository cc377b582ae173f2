r"""One number with its unit: the only answers that are compared by value without math-verify."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from .latex_normalization import drop_text_macros, strip_markup


_LONGEST = 200  # characters; what is longer is no number that anyone wrote on purpose
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*(?:US)?(?P<currency>[$€£¥₹]?)\s*(?P<sign2>[-+]?)\s*
    (?:
        (?:(?P<whole>{_DIGITS})\s*)?\\frac\s*\{{\s*(?P<top>-?\s*{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>-?\s*{_DECIMAL})\s*\}}
      | (?:(?P<whole2>{_DIGITS})\s+(?:and\s+)?)?(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)(?![\d.])
      | (?P<decimal>{_DECIMAL})(?:(?P<point>\.?)\\overline\{{(?P<period>\d+)\}})?
        (?:\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*\{{?\s*(?P<power>[-+]?\d{{1,3}})\s*\}}?|[eE](?P<power2>[-+]?\d{{1,3}}))?
    )
    (?P<rest>.*)
    """,
    re.X | re.S,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_IN_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
# Behind a number these make another number or more than one.
_NO_UNIT = {
    *_IN_WORDS,
    *_SCALES,
    *"and or to plus minus over squared cubed root half halves third thirds fourths fifths sixths eighths".split(),
    *"tenths hundred factorial pi sqrt sin cos tan log exp not but because is are base mod choose".split(),
}
_SMALL = {"a", "an", "as", "at", "by", "in", "of", "on", "per", "he", "it", "we", "my", "so", "up"}

# Dimension → units: names, then the size. Units of one dimension are converted, others are never equal.
_MEASURES = {
    "length": "mm millimeter millimetre 1/1000; cm centimeter centimetre 1/100; m meter metre 1; "
    "km kilometer kilometre 1000; in inch 127/5000; ft foot feet 381/1250; yd yard 1143/1250; mi mile 201168/125",
    "mass": "mg milligram 1/1000; g gram 1; kg kilogram 1000; oz ounce 45359237/1600000; lb pound 45359237/100000",
    "time": "s sec second 1; min minute 60; h hr hour 3600; day 86400; week wk 604800",
    "months": "month 1; yr year 12",
    "dollars": "¢ cent 1/100; $ usd dollar buck 1",
    "euros": "€ eur euro 1",
    "volume": "ml milliliter millilitre 1/1000; l liter litre 1",
    "speed": "mph mile/hour mi/h 1397/3125; km/h kmh kph km/hour kilometer/hour 5/18; m/s meter/second metre/second 1",
    "angle": "degree deg ^\\circ 1",
    "radians": "radian rad 1",
    "celsius": "^\\circc degree-celsius 1",
    "fahrenheit": "^\\circf degree-fahrenheit 1",
    "morning": "am a.m 1",
    "afternoon": "pm p.m 1",
    "%": "% percent pct 1",
}
_UNITS = {
    name: (dimension, Fraction(entry.split()[-1]))
    for dimension, entries in _MEASURES.items()
    for entry in entries.split(";")
    for name in entry.split()[:-1]
}


# A known unit of measure: (dimension, power) and its size in the dimension's own unit.
Measure = tuple[tuple[str, int], Fraction]


@dataclass(frozen=True)
class Quantity:
    """A number and its unit.

    value: the number as it stands: 20 for `20%`.
    unit: (dimension, power) of a known unit of measure, None without one and for all others (`eggs a day`).
    size: what the unit is worth in its dimension's own.
    places: decimal places, None for a fraction.
    """

    value: Fraction
    unit: tuple[str, int] | None
    size: Fraction
    places: int | None


def quantity(text: str) -> Quantity | None:
    """The number that the whole text is, with an optional unit, or None: `$1,234.50 a day` is 2469/2 dollars."""
    if len(text) > _LONGEST or not strip_markup(text):
        return None
    first, *others = drop_text_macros(strip_markup(text)).split()
    text = " ".join([in_digits(first), *others])
    text = re.sub(r"(?<=\d)\^?\{?\s*(?:st|nd|rd|th)\b\s*\}?", "", text)  # 5th
    if re.fullmatch(r"\([^(),]*\)", text):
        text = text[1:-1].strip()
    found = _NUMBER.fullmatch(text)
    value = None if found is None else _value(found)
    if found is None or value is None:
        return None
    rest = found["rest"]
    scale = re.match(r"\s*(thousand|million|billion|trillion)\b", rest, re.I)
    if scale:
        value, rest = value * _SCALES[scale[1].casefold()], rest[scale.end() :]
    measure = _unit(found["currency"] or "", rest)
    if measure is None:
        return None
    decimal = found["decimal"]
    places = None if decimal is None or found["period"] else len(decimal.partition(".")[2])
    return Quantity(value, *measure, places)


def in_digits(word: str) -> str:
    """`two` → `2`, up to twenty; any other word stays."""
    return str(_IN_WORDS.index(word.casefold())) if word.casefold() in _IN_WORDS else word


def split_unit(text: str) -> tuple[str, Measure | None]:
    r"""A bare expression and the known unit after it: `2\pi \text{ cm}` → `2\pi` and centimetres."""
    found = re.fullmatch(
        r"(.*\S)\s*(\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?|%|\^\s*\{?\s*\\circ\s*\}?)", text, re.S
    )
    measure = None if found is None else _measure(drop_text_macros(found[2]))
    return (text, None) if found is None or measure is None else (found[1], measure)


def same_quantity(first: Quantity, second: Quantity) -> bool:
    """Whether two are equal: units of one dimension are converted, a unit on one side alone is left aside.

    20% is 20 (a question for a percentage) and 0.2. A decimal of six places or more equals the number that it rounds.
    """
    if first.unit and second.unit:
        if first.unit != second.unit:
            return False
        return first.value * first.size == second.value * second.size
    if _equal(first, second):
        return True
    percent = [(a, b) for a, b in ((first, second), (second, first)) if a.unit == ("%", 1)]
    return any(a.value / 100 == b.value for a, b in percent)


def _equal(first: Quantity, second: Quantity) -> bool:
    if first.value == second.value:
        return True
    pairs = ((first, second), (second, first))
    return any(
        a.places and a.places >= 6 and b.places is None and round(b.value, a.places) == a.value for a, b in pairs
    )


def _value(found: re.Match[str]) -> Fraction | None:
    top, bottom = found["top"] or found["top2"], found["bottom"] or found["bottom2"]
    if top:
        value, below = _fraction(top), _fraction(bottom)
        full = found["whole"] or found["whole2"]
        if not below or (full and not 0 <= value < below):
            return None
        value = value / below + _fraction(full or "0")
    else:
        value = _fraction(found["decimal"])
        if found["period"]:
            if bool(found["point"]) == ("." in found["decimal"]):
                return None
            places = len(found["decimal"].partition(".")[2])
            value += Fraction(int(found["period"]), (10 ** len(found["period"]) - 1) * 10**places)
        value *= Fraction(10) ** int(found["power"] or found["power2"] or 0)
    signs = [found["sign"], found["sign2"]]
    if all(signs):
        return None
    return -value if "-" in signs else value


def _fraction(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits))


def _unit(currency: str, rest: str) -> tuple[tuple[str, int] | None, Fraction] | None:
    """The unit of a number in front of `rest`, (None, 1) for none that is known; None if `rest` is no unit."""
    known = _measure(rest)
    if known is None:
        glued = bool(rest) and not rest[0].isspace()
        words = re.fullmatch(r"(?:\(?[^\W\d_][^\W\d_'-]*\)?[.,]?(?:\s+|/|$)){1,8}", rest.strip())
        if rest.strip() and (glued or not words):
            return None
        found = re.findall(r"[^\W\d_]+", rest.casefold())
        if set(found) & _NO_UNIT or any(len(word) < 3 and word not in _SMALL | set(_UNITS) for word in found):
            return None
    currency_unit = _UNITS.get(currency)
    if currency_unit:  # `$18 a day`
        return (currency_unit[0], 1), currency_unit[1]
    return known or (None, Fraction(1))


def _measure(text: str) -> Measure | None:
    """A known unit, squared or cubed: `cm^2`, `square feet`, `miles per hour`."""
    text = re.sub(r"\s+", " ", text.strip().strip("()").rstrip(".").casefold())
    text = re.sub(r"\s*\^\s*\{?\s*\\circ\s*\}?\s*", r"^\\circ", re.sub(r"\s+per\s+|\s*/\s*", "/", text))
    power = 1
    for number, sign in ((2, r"^(?:square|sq\.?) | ?\^ ?\{?2\}?$"), (3, r"^(?:cubic|cu\.?) | ?\^ ?\{?3\}?$")):
        shorter = re.sub(sign, "", text)
        if shorter != text:
            power, text = number, shorter
    words = [re.sub(r"(?<=[a-z]{2})s$", "", re.sub(r"(?<=inch)es$", "", word)) for word in text.split(" ")]
    words = ["/".join(re.sub(r"(?<=[a-z]{2})s$", "", part) for part in word.split("/")) for word in words]
    text = "-".join(words)
    if text not in _UNITS:
        return None
    dimension, size = _UNITS[text]
    return (dimension, power), size**power
