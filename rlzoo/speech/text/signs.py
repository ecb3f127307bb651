"""Names of signs, units, currencies and abbreviations: the tables of the rules that make written text spoken."""

from __future__ import annotations

PAUSE = ","
"""Stands for a pause among spoken words."""
SIGNS = {
    "€": " EUR ", "£": " GBP ", "¥": " JPY ", "₹": " INR ", "₩": " KRW ", "₽": " RUB ", "₺": " TRY ", "₪": " ILS ",
    "₿": " BTC ", "¢": " USc ", "°": " degrees ", "℃": " degrees C ", "℉": " degrees F ", "×": " * ",
    "÷": " divided by ", "±": " plus or minus ", "≈": " about ", "≤": " is at most ", "≥": " is at least ",
    "≠": " is not equal to ", "√": " square root of ", "∞": " infinity ", "‰": " per mille ", "⁄": "/", "№": " No. ",
    "©": " copyright ", "™": "", "®": "", "–": " -- ", "—": " -- ", "―": " -- ", "…": " ... ", "−": "-",
    "§": " section ",
    "•": ", ", "·": " ", "‘": "'", "’": "'", "ʼ": "'", "´": "'", "`": "'", "′": "'", "“": '"', "”": '"', "„": '"',
    "″": '"', "«": '"', "»": '"', "‐": "-", "‑": "-", "\u200b": "", "\ufeff": "", "\u00ad": "", "µ": "μ", "Ω": "Ω",
    "∆": "Δ", "→": " to ", "∑": " sum of ", "∏": " product of ", "∫": " integral of ", "∂": " partial ",
    "∈": " in ", "∉": " not in ", "∀": " for all ", "∃": " there is ", "∅": " empty set ", "∪": " union ",
    "∩": " intersection ", "⊂": " subset of ", "⇒": " implies ", "∝": " is proportional to ", "≡": " is identical to ",
    "≪": " is much less than ", "≫": " is much greater than ", "∴": " therefore ", "¶": " paragraph ",
    "⋅": " * ", "∙": " * ", "฿": " THB ", "₫": " VND ", "₴": " UAH ", "₦": " NGN ", "₱": " PHp ", "₵": " GHS ",
    "\u2028": " ", "\u2029": " ", "‹": '"', "›": '"', "↔": " to ", "⇔": " if and only if ",
}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        str.split(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon "
            "phi chi psi omega"
        ),
        strict=True,
    )
)

# Name of one and of many, of a hundredth and of hundredths.
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "sen", "sen"),
    "INR": ("rupee", "rupees", "paisa", "paise"),
    "CHF": ("swiss franc", "swiss francs", "centime", "centimes"),
    "CNY": ("yuan", "yuan", "fen", "fen"),
    "RMB": ("renminbi", "renminbi", "fen", "fen"),
    "KRW": ("won", "won", "jeon", "jeon"),
    "RUB": ("ruble", "rubles", "kopek", "kopeks"),
    "TRY": ("lira", "lira", "kurus", "kurus"),
    "ILS": ("shekel", "shekels", "agora", "agorot"),
    "SEK": ("swedish krona", "swedish kronor", "ore", "ore"),
    "NOK": ("norwegian krone", "norwegian kroner", "ore", "ore"),
    "DKK": ("danish krone", "danish kroner", "ore", "ore"),
    "PLN": ("zloty", "zloty", "grosz", "grosz"),
    "BRL": ("brazilian real", "brazilian reais", "centavo", "centavos"),
    "THB": ("baht", "baht", "satang", "satang"),
    "VND": ("dong", "dong", "", ""),
    "UAH": ("hryvnia", "hryvnia", "kopiyka", "kopiykas"),
    "NGN": ("naira", "naira", "kobo", "kobo"),
    "PHp": ("philippine peso", "philippine pesos", "centavo", "centavos"),
    "GHS": ("cedi", "cedis", "pesewa", "pesewas"),
    "CZK": ("czech koruna", "czech korunas", "haler", "halers"),
    "HUF": ("forint", "forints", "", ""),
    "kr": ("krone", "kroner", "ore", "ore"),
    "zl": ("zloty", "zloty", "grosz", "grosz"),
    "MXN": ("mexican peso", "mexican pesos", "centavo", "centavos"),
    "ZAR": ("rand", "rand", "cent", "cents"),
    "BTC": ("bitcoin", "bitcoins", "satoshi", "satoshi"),
    "USc": ("cent", "cents", "", ""),
    "p": ("penny", "pence", "", ""),
}
DOLLARS = {
    "US": "", "AU": "australian", "A": "australian", "CA": "canadian", "C": "canadian", "NZ": "new zealand",
    "HK": "hong kong", "S": "singapore", "NT": "new taiwan",
}  # fmt: skip
for _code, _name in {"AUD": "AU", "CAD": "CA", "NZD": "NZ", "HKD": "HK", "SGD": "S"}.items():
    CURRENCIES[_code] = (f"{DOLLARS[_name]} dollar", f"{DOLLARS[_name]} dollars", "cent", "cents")
CURRENCIES["USD"] = ("u_s dollar", "u_s dollars", "cent", "cents")

SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion", "t": "trillion"}
UNITS = {
    "mph": "mile per hour", "kph": "kilometer per hour", "km": "kilometer", "m": "meter", "cm": "centimeter",
    "mm": "millimeter", "um": "micrometer", "nm": "nanometer", "kg": "kilogram", "g": "gram", "mg": "milligram",
    "ug": "microgram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot", "mi": "mile", "yd": "yard",
    "yds": "yard", "kHz": "kilohertz", "khz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "Hz": "hertz",
    "hz": "hertz", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
    "kbps": "kilobit per second", "Mbps": "megabit per second", "Gbps": "gigabit per second", "ms": "millisecond",
    "us": "microsecond", "ns": "nanosecond", "s": "second", "sec": "second", "secs": "second", "min": "minute",
    "mins": "minute", "hr": "hour", "hrs": "hour", "h": "hour", "l": "liter", "L": "liter", "ml": "milliliter",
    "mL": "milliliter", "cl": "centiliter", "gal": "gallon", "qt": "quart", "tsp": "teaspoon", "tbsp": "tablespoon",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "mW": "milliwatt", "Wh": "watt hour",
    "kWh": "kilowatt hour", "MWh": "megawatt hour", "V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp",
    "mAh": "milliamp hour", "amp": "amp", "amps": "amp", "J": "joule", "kJ": "kilojoule", "cal": "calorie",
    "kcal": "kilocalorie", "Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal", "dB": "decibel", "db": "decibel",
    "dpi": "dot per inch", "fps": "frame per second", "rpm": "revolution per minute", "bpm": "beat per minute",
    "psi": "pound per square inch", "ppm": "part per million", "ha": "hectare",
    "mpg": "mile per gallon", "kn": "knot", "kts": "knot", "hp": "horsepower", "MP": "megapixel", "lm": "lumen",
    "PB": "petabyte", "Ah": "amp hour", "mcg": "microgram", "dl": "deciliter", "dL": "deciliter", "pts": "point",
    "mos": "month", "yr": "year", "yrs": "year", "Ω": "ohm", "kΩ": "kiloohm", "N": "newton",
}  # fmt: skip
ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "messrs": "messers", "prof": "professor", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "cpl": "corporal", "maj": "major",
    "adm": "admiral", "rev": "reverend", "hon": "honorable", "pres": "president", "gov": "governor", "sen": "senator",
    "rep": "representative", "jr": "junior", "sr": "senior", "esq": "esquire", "etc": "et cetera", "vs": "versus",
    "approx": "approximately", "dept": "department", "govt": "government", "est": "established", "inc": "incorporated",
    "ltd": "limited", "corp": "corporation", "co": "company", "assn": "association", "bros": "brothers",
    "ave": "avenue", "blvd": "boulevard", "rd": "road", "ln": "lane", "hwy": "highway", "pkwy": "parkway",
    "mt": "mount", "ft": "fort", "vol": "volume", "fig": "figure", "figs": "figures", "eq": "equation",
    "sec": "section", "pp": "pages", "ed": "edition", "al": "al", "cf": "compare", "viz": "namely", "ca": "circa",
    "tel": "telephone", "ext": "extension", "misc": "miscellaneous", "max": "maximum", "appt": "appointment",
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday", "thur": "thursday",
    "thurs": "thursday", "fri": "friday", "sat": "saturday", "sun": "sunday", "ctrl": "control",
    "fr": "father", "atty": "attorney", "det": "detective", "supt": "superintendent", "insp": "inspector",
    "cmdr": "commander", "cdr": "commander", "pvt": "private", "msgr": "monsignor", "asst": "assistant",
    "univ": "university", "inst": "institute", "intl": "international", "natl": "national", "assoc": "association",
    "avg": "average", "temp": "temperature", "qty": "quantity", "incl": "including", "excl": "excluding",
    "esp": "especially", "cont": "continued", "attn": "attention", "mgr": "manager", "mme": "madame",
}  # fmt: skip
# Words of ordinary text too: an abbreviation only with its full stop and something after it.
DOTTED_ONLY = frozenset(
    str.split(
        "ms gen co ed al sec est fig mon wed sat sun rep hon ave rev eq ext col inc tel thu fri ca max maj ln adm gov "
        "fr det temp inst cont avg univ esp incl excl"
    )
)
TRAILING = frozenset(str.split("etc jr sr inc ltd corp co bros esq ave blvd rd hwy"))
NUMBERED = {
    "ch": "chapter", "p": "page", "pg": "page", "pp": "pages", "vol": "volume", "vols": "volumes", "no": "number",
    "nos": "numbers", "fig": "figure", "figs": "figures", "sec": "section", "eq": "equation", "art": "article",
    "ex": "exercise", "tab": "table", "par": "paragraph", "para": "paragraph", "apt": "apartment", "rm": "room",
    "bldg": "building", "hwy": "highway", "rte": "route", "pt": "part", "ep": "episode", "ver": "version",
    "c": "circa", "ca": "circa", "app": "appendix", "sect": "section", "ste": "suite", "ln": "line", "col": "column",
    "approx": "approximately", "max": "maximum", "min": "minimum", "tel": "telephone", "ext": "extension",
    "chap": "chapter", "chs": "chapters", "secs": "sections", "eqs": "equations", "qty": "quantity",
}  # fmt: skip
STREETS = {
    "St": "street", "Ave": "avenue", "Rd": "road", "Blvd": "boulevard", "Dr": "drive", "Ln": "lane", "Ct": "court",
    "Pl": "place", "Sq": "square",
}  # fmt: skip
STATES = frozenset(
    str.split(
        "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK "
        "OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC"
    )
)
# Two capitals that are an emphasised word rather than an acronym.
SHORT_WORDS = frozenset(str.split("am an as at be by do go he hi if in is me my no of oh on or so to up we"))
# Read letter by letter, though the dictionary or the mouth could read them: in any case, and in capitals only.
SPELLED = frozenset(
    str.split(
        "omg lol lmao rofl btw fyi idk brb imo imho tbh faq diy asap tba tbd eta usb html css http https url pdf csv "
        "txt phd dvd cd dna rna gps atm tv pc ufo uk usa fbi cia xml sql gui api ai ui ux vpn "
        "abc nba aol espn irs"
    )
)
SPELLED_CAPITALS = frozenset(
    str.split(
        "LED MIT SAT RIP BYOB ICYMI MMORPG AAA YMCA YWCA USDA ASPCA UAE IRA ADHD WHO SUV IPO ESP OED IOU ALS AIDE UPS "
        "EST EDT CST CDT MDT PDT CET CEST BST IST JST UTC ISBN IBAN ISSN UCLA USSR NCAA NAACP NCIS ESPN USAF USMC UCSD "
        "UCSB USPS IEEE ACLU AARP AFAIK IIRC EEOC"
    )
)
"""Capitals that are letters, though they are words of the dictionary in lower case."""
FILES = (
    "txt|pdf|csv|json|html?|css|js|ts|py|md|docx?|xlsx?|pptx?|zip|exe|jpe?g|png|gif|svg|mp[34]|wav|flac|ogg|xml|ya?ml|"
    "toml|sh|log|cpp|java|tar|gz|ini|cfg|bat|dll|iso|tex|bib|ipynb"
)
DOMAINS = "com|org|net|edu|gov|io|ai|co|uk|de|fr|eu|info|tv|dev|app|us|ca|me"
