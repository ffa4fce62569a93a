//! Reads a format code into its sections.

use super::locale::{self, Language, Marks};

/// More percent signs than these don't multiply any further.
const MOST_PERCENTS: i32 = 4;
/// The most digits of a denominator, and of the parts of a second.
const MOST_DIGITS: usize = 6;

/// What a section shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Literal,
    General,
    Text,
    Number,
    Scientific,
    Fraction,
    Date,
    /// A time that may exceed a day, e.g. `[h]:mm`.
    Elapsed,
}

/// One part of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(char),
    /// A place for a digit: `0`, `#` or `?`.
    Digit(char),
    Point,
    Comma,
    /// The power of ten. It takes the digits after it.
    Exponent {
        letter: char,
        plus: bool,
        width: usize,
    },
    Slash,
    /// A `/` outside a fraction: in a date, the language's separator.
    DateMark,
    /// A denominator that is given.
    Denominator(u32),
    General,
    Text,
    Date(Part, usize),
}

/// A part of a date or a time. How long its code is comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    SubSecond,
    ElapsedHours,
    ElapsedMinutes,
    ElapsedSeconds,
    /// `AM/PM`.
    HalfDay,
    /// `A/P` (1) or `a/p` (0).
    HalfDayLetter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

/// Which numbers a section is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    pub(super) op: Op,
    pub(super) than: f64,
}

impl Condition {
    fn parse(inside: &str) -> Option<Self> {
        const OPS: [(&str, Op); 6] = [
            ("<=", Op::LessOrEqual),
            ("<>", Op::NotEqual),
            (">=", Op::GreaterOrEqual),
            ("<", Op::Less),
            (">", Op::Greater),
            ("=", Op::Equal),
        ];
        let (op, rest) = OPS.iter().find_map(|(sign, op)| Some((*op, inside.strip_prefix(sign)?)))?;
        let than: f64 = rest.trim().parse().ok()?;
        than.is_finite().then_some(Self { op, than })
    }

    // A condition is met by exactly its number.
    #[expect(clippy::float_cmp)]
    pub(super) fn holds(self, value: f64) -> bool {
        match self.op {
            Op::Less => value < self.than,
            Op::LessOrEqual => value <= self.than,
            Op::Equal => value == self.than,
            Op::NotEqual => value != self.than,
            Op::GreaterOrEqual => value >= self.than,
            Op::Greater => value > self.than,
        }
    }

    /// Whether no positive number meets it.
    pub(super) fn only_negative(self) -> bool {
        match self.op {
            Op::Less | Op::LessOrEqual => self.than <= 0.0,
            Op::Equal => self.than < 0.0,
            _ => false,
        }
    }

    /// Whether every positive number meets it.
    pub(super) fn every_positive(self) -> bool {
        matches!(self.op, Op::Greater | Op::GreaterOrEqual) && self.than <= 0.0
    }
}

/// One of the parts of a code that semicolons separate.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) condition: Option<Condition>,
    pub(super) pieces: Vec<Piece>,
    pub(super) kind: Kind,
    pub(super) marks: Marks,
    pub(super) language: &'static Language,
    /// Whether there is a thousands separator.
    pub(super) grouped: bool,
    /// By which power of ten the number is multiplied.
    pub(super) shift: i32,
}

impl Section {
    fn new() -> Self {
        Self {
            condition: None,
            pieces: Vec::new(),
            kind: Kind::Literal,
            marks: locale::ENGLISH_MARKS,
            language: &locale::ENGLISH,
            grouped: false,
            shift: 0,
        }
    }

    /// Returns only its literals.
    pub(super) fn literals(&self) -> String {
        let literal = |piece: &Piece| if let Piece::Literal(literal) = piece { Some(*literal) } else { None };
        self.pieces.iter().filter_map(literal).collect()
    }

    /// Its literals, with what General shows for a number.
    pub(super) fn with_general(&self, number: &str) -> String {
        let mut shown = String::new();
        let mut number = Some(number);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => shown.push(*literal),
                Piece::General => {
                    let point = |c| if c == '.' { self.marks.point } else { c };
                    shown.extend(number.take().unwrap_or_default().chars().map(point));
                }
                _ => (),
            }
        }
        shown
    }

    fn push_text(&mut self, text: &str) {
        self.pieces.extend(text.chars().map(Piece::Literal));
    }

    fn has(&self, wanted: impl Fn(&Piece) -> bool) -> bool {
        self.pieces.iter().any(wanted)
    }

    /// Settles what only the whole section tells.
    fn finish(&mut self) {
        let elapsed = [Part::ElapsedHours, Part::ElapsedMinutes, Part::ElapsedSeconds];
        self.kind = if self.has(|piece| matches!(piece, Piece::Date(part, _) if elapsed.contains(part))) {
            Kind::Elapsed
        } else if self.has(|piece| matches!(piece, Piece::Date(..))) {
            Kind::Date
        } else if self.has(|piece| *piece == Piece::Text) {
            Kind::Text
        } else if self.has(|piece| *piece == Piece::General) {
            Kind::General
        } else if self.has(|piece| *piece == Piece::Slash) {
            Kind::Fraction
        } else if self.has(|piece| matches!(piece, Piece::Exponent { .. })) {
            Kind::Scientific
        } else if self.has(|piece| matches!(piece, Piece::Digit(_))) {
            Kind::Number
        } else {
            Kind::Literal
        };
        match self.kind {
            Kind::Number | Kind::Scientific | Kind::Fraction => self.commas(),
            _ => self.no_digits(),
        }
        let dated = matches!(self.kind, Kind::Date | Kind::Elapsed);
        let mark = Piece::Literal(if dated { self.marks.date } else { '/' });
        for piece in self.pieces.iter_mut().filter(|piece| **piece == Piece::DateMark) {
            *piece = mark;
        }
        self.minutes();
    }

    /// Commas between digits part thousands. Those after the last digit divide by a thousand each.
    fn commas(&mut self) {
        let is_digit = |piece: &Piece| matches!(piece, Piece::Digit(_));
        let end = self.pieces.iter().position(|piece| *piece == Piece::Point).unwrap_or(self.pieces.len());
        let last_whole = self.pieces.iter().take(end).rposition(is_digit).unwrap_or(0);
        let last = self.pieces.iter().rposition(is_digit).unwrap_or(0);
        for (at, piece) in self.pieces.iter().enumerate() {
            if *piece == Piece::Comma {
                if at < last_whole {
                    self.grouped = true;
                } else if at < end || at > last {
                    self.shift -= 3;
                }
            }
        }
        self.pieces.retain(|piece| *piece != Piece::Comma);
    }

    /// Places for digits mean nothing among dates and texts.
    fn no_digits(&mut self) {
        for piece in &mut self.pieces {
            match *piece {
                Piece::Digit(place) => *piece = Piece::Literal(place),
                Piece::Point => *piece = Piece::Literal('.'),
                Piece::Comma => *piece = Piece::Literal(','),
                _ => (),
            }
        }
    }

    /// `m` and `mm` are minutes after an hour or before a second. The first after a second are, too.
    fn minutes(&mut self) {
        let units: Vec<(usize, Part, usize)> = self
            .pieces
            .iter()
            .enumerate()
            .filter_map(|(at, piece)| match piece {
                Piece::Date(Part::HalfDay | Part::HalfDayLetter | Part::SubSecond, _) => None,
                Piece::Date(part, width) => Some((at, *part, *width)),
                _ => None,
            })
            .collect();
        let mut before = None;
        let mut minutes = false;
        for (nth, &(at, part, width)) in units.iter().enumerate() {
            let after = units.get(nth + 1).map(|unit| unit.1);
            let near = match before {
                Some(Part::Hour | Part::ElapsedHours) => true,
                Some(Part::Second) if !minutes => true,
                _ => matches!(after, Some(Part::Second | Part::ElapsedSeconds)),
            };
            let minute = part == Part::Month && width <= 2 && near;
            minutes |= minute;
            before = Some(if minute { Part::Minute } else { part });
            if minute && let Some(piece) = self.pieces.get_mut(at) {
                *piece = Piece::Date(Part::Minute, width);
            }
        }
    }
}

/// The sections of a code.
pub(super) fn parse(code: &str) -> Vec<Section> {
    let mut reader = Reader { chars: code.chars().collect(), at: 0 };
    let mut sections = vec![reader.section()];
    while reader.peek(0) == Some(';') {
        reader.at += 1;
        sections.push(reader.section());
    }
    sections
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek(0);
        self.at += usize::from(next.is_some());
        next
    }

    /// Whether this word is next, in any case. It is read then.
    fn eat_word(&mut self, word: &str) -> bool {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let length = word.chars().count();
        let found = rest.len() >= length && word.chars().zip(rest).all(|(a, b)| a.eq_ignore_ascii_case(b));
        self.at += if found { length } else { 0 };
        found
    }

    /// How many of the next characters are wanted. They are read.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        let start = self.at;
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
        self.at - start
    }

    fn section(&mut self) -> Section {
        let mut section = Section::new();
        let mut percents = 0;
        // A tag that stands for the date or time format of the system, which replaces the section.
        let mut system = None;
        while self.peek(0).is_some_and(|next| next != ';') {
            if self.eat_word("General") {
                section.pieces.push(Piece::General);
                continue;
            }
            if self.date_part(&mut section) || self.digits(&mut section) {
                continue;
            }
            match self.next().unwrap_or(' ') {
                '"' => {
                    let rest = self.chars.get(self.at..).unwrap_or_default();
                    let quoted: String = rest.iter().take_while(|next| **next != '"').collect();
                    self.at += quoted.chars().count() + 1;
                    section.push_text(&quoted);
                }
                '\\' => section.pieces.push(Piece::Literal(self.next().unwrap_or('\\'))),
                // As wide as that character: a space, or two for one that is wider than punctuation.
                '_' => match self.next() {
                    Some(narrow) if narrow == ' ' || narrow.is_ascii_punctuation() => section.push_text(" "),
                    Some(_) => section.push_text("  "),
                    None => (),
                },
                '*' => _ = self.next(),
                '[' => self.bracket(&mut section, &mut system),
                '@' => section.pieces.push(Piece::Text),
                '%' => {
                    percents += 1;
                    section.pieces.push(Piece::Literal('%'));
                }
                '/' => section.pieces.push(Piece::DateMark),
                other => section.pieces.push(Piece::Literal(other)),
            }
        }
        if let Some(code) = system {
            let shown = Reader { chars: str::chars(code).collect(), at: 0 }.section();
            return Section { condition: section.condition, ..shown };
        }
        section.shift += 2 * percents.min(MOST_PERCENTS);
        section.finish();
        section
    }

    /// Reads what belongs to a number, if that is next.
    fn digits(&mut self, section: &mut Section) -> bool {
        let is_place = |next: Option<char>| matches!(next, Some('0' | '#' | '?'));
        let number = matches!(section.pieces.last(), Some(Piece::Digit(_) | Piece::Comma));
        let scientific = section.has(|piece| matches!(piece, Piece::Exponent { .. }));
        let digits = section.has(|piece| matches!(piece, Piece::Digit(_)));
        match self.peek(0) {
            Some(place @ ('0' | '#' | '?')) if !scientific => section.pieces.push(Piece::Digit(place)),
            Some('.') if !section.has(|piece| *piece == Piece::Point) && !scientific => {
                section.pieces.push(Piece::Point);
            }
            Some(',') if number => section.pieces.push(Piece::Comma),
            Some(letter @ ('E' | 'e')) if digits && !scientific => {
                let signed = matches!(self.peek(1), Some('+' | '-'));
                if !is_place(self.peek(1 + usize::from(signed))) {
                    return false;
                }
                let plus = self.peek(1) == Some('+');
                self.at += 1 + usize::from(signed);
                let width = self.run(|next| is_place(Some(next)));
                section.pieces.push(Piece::Exponent { letter, plus, width });
                return true;
            }
            Some('/') if number && !section.has(|piece| *piece == Piece::Slash) => {
                let given = self.peek(1).is_some_and(|next| ('1'..='9').contains(&next));
                if !given && !is_place(self.peek(1)) {
                    return false;
                }
                section.pieces.push(Piece::Slash);
                if given {
                    self.at += 1;
                    let start = self.at;
                    self.run(|next| next.is_ascii_digit());
                    let digits = self.chars.get(start..self.at).unwrap_or_default();
                    let digits: String = digits.iter().take(MOST_DIGITS).collect();
                    section.pieces.push(Piece::Denominator(digits.parse().unwrap_or(1)));
                    return true;
                }
            }
            _ => return false,
        }
        self.at += 1;
        true
    }

    /// Reads a part of a date or a time, if that is next.
    fn date_part(&mut self, section: &mut Section) -> bool {
        let Some(next) = self.peek(0) else { return false };
        if self.eat_word("AM/PM") {
            section.pieces.push(Piece::Date(Part::HalfDay, 0));
            return true;
        }
        if self.eat_word("A/P") {
            section.pieces.push(Piece::Date(Part::HalfDayLetter, usize::from(next == 'A')));
            return true;
        }
        let seconds =
            matches!(section.pieces.last(), Some(Piece::Date(Part::Second | Part::ElapsedSeconds, _)));
        if next == '.' && seconds && self.peek(1) == Some('0') {
            self.at += 1;
            let width = self.run(|next| next == '0');
            section.pieces.push(Piece::Date(Part::SubSecond, width.min(MOST_DIGITS)));
            return true;
        }
        let digits = section.has(|piece| matches!(piece, Piece::Digit(_)));
        let part = match next.to_ascii_lowercase() {
            'y' => Part::Year,
            // The year of an era, which is the plain year outside of East Asia.
            'e' if !digits => Part::Year,
            'm' => Part::Month,
            'd' => Part::Day,
            'h' => Part::Hour,
            's' => Part::Second,
            _ => return false,
        };
        let width = self.run(|other| other.eq_ignore_ascii_case(&next));
        let width = if next.eq_ignore_ascii_case(&'e') { 4 } else { width };
        section.pieces.push(Piece::Date(part, width));
        true
    }

    /// Reads the content of square brackets: a condition, a tag or an elapsed time. Anything else, e.g. a colour,
    /// does not change the text.
    fn bracket(&mut self, section: &mut Section, system: &mut Option<&'static str>) {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|next| *next == ']') else {
            section.pieces.push(Piece::Literal('['));
            return;
        };
        let inside: String = rest.iter().take(length).collect();
        self.at += length + 1;
        if let Some(tag) = inside.strip_prefix('$') {
            let (currency, place) = tag.split_once('-').unwrap_or((tag, ""));
            section.push_text(currency);
            match place.to_ascii_lowercase().as_str() {
                "f800" | "x-sysdate" => *system = Some("dddd, mmmm d, yyyy"),
                "f400" | "x-systime" => *system = Some("hh:mm:ss AM/PM"),
                place => {
                    let id = locale::id(place);
                    section.language = locale::language(id);
                    // A currency may be foreign to the sheet, so that it tells nothing of its digits.
                    if currency.is_empty() {
                        section.marks = locale::marks(id);
                    }
                }
            }
        } else if let Some(condition) = Condition::parse(&inside) {
            section.condition = Some(condition);
        } else {
            let part = match inside.to_ascii_lowercase().chars().next() {
                Some('h') => Part::ElapsedHours,
                Some('m') => Part::ElapsedMinutes,
                Some('s') => Part::ElapsedSeconds,
                _ => return,
            };
            let first = inside.chars().next().unwrap_or(' ');
            if inside.chars().all(|other| other.eq_ignore_ascii_case(&first)) {
                section.pieces.push(Piece::Date(part, inside.len()));
            }
        }
    }
}
