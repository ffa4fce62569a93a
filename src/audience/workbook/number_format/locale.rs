//! What a locale tag changes: names of months and days, and the marks in numbers and dates.

/// How digits are grouped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) point: char,
    pub(super) thousands: char,
    /// Lakhs and crores: 12,34,567.
    pub(super) indian: bool,
    /// The separator for `/` in a date.
    pub(super) date: char,
}

pub(super) const ENGLISH_MARKS: Marks = Marks { point: '.', thousands: ',', indian: false, date: '/' };

/// The names of a language, separated by `|`.
#[derive(Debug)]
pub(super) struct Language {
    pub(super) months: &'static str,
    pub(super) short_months: &'static str,
    /// From Sunday.
    pub(super) days: &'static str,
    pub(super) short_days: &'static str,
    pub(super) half_days: &'static str,
}

pub(super) static ENGLISH: Language = Language {
    months: "January|February|March|April|May|June|July|August|September|October|November|December",
    short_months: "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec",
    days: "Sunday|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday",
    short_days: "Sun|Mon|Tue|Wed|Thu|Fri|Sat",
    half_days: "AM|PM",
};

static GERMAN: Language = Language {
    months: "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember",
    short_months: "Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez",
    days: "Sonntag|Montag|Dienstag|Mittwoch|Donnerstag|Freitag|Samstag",
    short_days: "So|Mo|Di|Mi|Do|Fr|Sa",
    half_days: "vorm.|nachm.",
};

static FRENCH: Language = Language {
    months: "janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre",
    short_months: "janv.|févr.|mars|avr.|mai|juin|juil.|août|sept.|oct.|nov.|déc.",
    days: "dimanche|lundi|mardi|mercredi|jeudi|vendredi|samedi",
    short_days: "dim.|lun.|mar.|mer.|jeu.|ven.|sam.",
    half_days: "AM|PM",
};

static SPANISH: Language = Language {
    months: "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre",
    short_months: "ene|feb|mar|abr|may|jun|jul|ago|sep|oct|nov|dic",
    days: "domingo|lunes|martes|miércoles|jueves|viernes|sábado",
    short_days: "dom|lun|mar|mié|jue|vie|sáb",
    half_days: "a.\u{a0}m.|p.\u{a0}m.",
};

static PORTUGUESE: Language = Language {
    months: "janeiro|fevereiro|março|abril|maio|junho|julho|agosto|setembro|outubro|novembro|dezembro",
    short_months: "jan|fev|mar|abr|mai|jun|jul|ago|set|out|nov|dez",
    days: "domingo|segunda-feira|terça-feira|quarta-feira|quinta-feira|sexta-feira|sábado",
    short_days: "dom|seg|ter|qua|qui|sex|sáb",
    half_days: "AM|PM",
};

static ITALIAN: Language = Language {
    months: "gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre",
    short_months: "gen|feb|mar|apr|mag|giu|lug|ago|set|ott|nov|dic",
    days: "domenica|lunedì|martedì|mercoledì|giovedì|venerdì|sabato",
    short_days: "dom|lun|mar|mer|gio|ven|sab",
    half_days: "a.m.|p.m.",
};

static INDONESIAN: Language = Language {
    months: "Januari|Februari|Maret|April|Mei|Juni|Juli|Agustus|September|Oktober|November|Desember",
    short_months: "Jan|Feb|Mar|Apr|Mei|Jun|Jul|Agu|Sep|Okt|Nov|Des",
    days: "Minggu|Senin|Selasa|Rabu|Kamis|Jumat|Sabtu",
    short_days: "Min|Sen|Sel|Rab|Kam|Jum|Sab",
    half_days: "AM|PM",
};

static HINDI: Language = Language {
    months: "जनवरी|फ़रवरी|मार्च|अप्रैल|मई|जून|जुलाई|अगस्त|सितंबर|अक्टूबर|नवंबर|दिसंबर",
    short_months: "जन॰|फ़र॰|मार्च|अप्रैल|मई|जून|जुल॰|अग॰|सित॰|अक्टू॰|नव॰|दिस॰",
    days: "रविवार|सोमवार|मंगलवार|बुधवार|गुरुवार|शुक्रवार|शनिवार",
    short_days: "रवि|सोम|मंगल|बुध|गुरु|शुक्र|शनि",
    half_days: "AM|PM",
};

/// The language of a locale id. Others than these are shown in English.
pub(super) fn language(id: u32) -> &'static Language {
    // The lower bits are the language, the others its country.
    match id & 0x3ff {
        0x07 => &GERMAN,
        0x0A => &SPANISH,
        0x0C => &FRENCH,
        0x10 => &ITALIAN,
        0x16 => &PORTUGUESE,
        0x21 => &INDONESIAN,
        0x39 => &HINDI,
        _ => &ENGLISH,
    }
}

/// The id of a locale that is given by its number or its name, in lower case. 0 if it is not known.
pub(super) fn id(locale: &str) -> u32 {
    const NAMES: [(&str, u32); 11] = [
        ("de-at", 0xC07),
        ("de-ch", 0x807),
        ("de", 0x407),
        ("en-in", 0x4009),
        ("es", 0xC0A),
        ("fr", 0x40C),
        ("hi", 0x439),
        ("id", 0x421),
        ("it", 0x410),
        ("pt-pt", 0x816),
        ("pt", 0x416),
    ];
    // The digits before the last four select a calendar and the shape of digits. Other parts may follow a comma.
    let locale = locale.split(',').next().unwrap_or_default();
    if let Ok(id) = u32::from_str_radix(locale, 16)
        && locale.len() > 2
    {
        return id & 0xffff;
    }
    let named =
        |name: &str| locale.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    NAMES.iter().find(|(name, _)| named(name)).map_or(0, |(_, id)| *id)
}

/// How a country groups digits and separates dates.
pub(super) fn marks(id: u32) -> Marks {
    let (point, thousands) = match id {
        0x407 | 0xC07 | 0x40A | 0xC0A | 0x410 | 0x416 | 0x421 => (',', '.'),
        0x40C | 0x816 => (',', '\u{a0}'),
        0x807 => ('.', '\''),
        _ => ('.', ','),
    };
    let date = match id {
        0x407 | 0x807 | 0xC07 | 0x40B | 0x415 | 0x419 => '.',
        0x406 | 0x413 | 0x41D | 0x816 => '-',
        _ => '/',
    };
    Marks { point, thousands, date, indian: matches!(id, 0x439 | 0x4009) }
}
