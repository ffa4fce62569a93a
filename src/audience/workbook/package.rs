//! The parts of a workbook: the archive, and the relations that say what each part is.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::{fs::File, path::Path, rc::Rc};

use memchr::memmem;
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::xml::{Budget, Piece, Xml};

/// Maximum number of parts.
const PARTS: usize = 10_000;
/// Maximum number of sheets, and of relations between parts.
const NAMES: usize = 10_000;

/// The archive of a workbook.
pub(super) struct Package {
    parts: ZipArchive<BufReader<File>>,
    budget: Rc<Budget>,
}

/// A sheet of a workbook.
pub(super) struct Sheet {
    name: String,
    /// The id of its relation to its part.
    relation: String,
    is_hidden: bool,
}

/// The sheets and relations that the workbook lists.
pub(super) struct Workbook {
    pub(super) sheets: Vec<Sheet>,
    /// Whether dates count from 1904.
    pub(super) from_1904: bool,
    relations: Vec<Relation>,
}

struct Relation {
    id: String,
    kind: String,
    part: String,
}

impl Package {
    /// Opens an archive with a limit on the total unpacked bytes of its parts.
    pub(super) fn open(mut file: File, largest: u64) -> Result<Self, String> {
        let too_many = || format!("it has more than {PARTS} parts");
        if claimed_parts(&mut file).map_err(|error| error.to_string())? > PARTS as u64 {
            return Err(too_many());
        }
        file.rewind().map_err(|error| error.to_string())?;
        let parts = ZipArchive::new(BufReader::new(file)).map_err(|error| match error {
            ZipError::InvalidArchive(_) => {
                "it is not an .xlsx file, or is damaged; save it again as .xlsx, or name a CSV file .csv"
                    .to_owned()
            }
            error => error.to_string(),
        })?;
        if parts.len() > PARTS {
            return Err(too_many());
        }
        Ok(Self { parts, budget: Rc::new(Budget::new(largest)) })
    }

    /// Returns the part of a name, if there is one.
    pub(super) fn part(&mut self, name: &str) -> Result<Option<Xml<ZipFile<'_, BufReader<File>>>>, String> {
        // Some programs refer to a name in another case than they wrote it.
        let in_any_case = |parts: &ZipArchive<_>| {
            parts.file_names().position(|known| known.is_ok_and(|known| known.eq_ignore_ascii_case(name)))
        };
        let index = self.parts.index_for_name(name).or_else(|| in_any_case(&self.parts));
        let Some(index) = index else { return Ok(None) };
        let part = self.parts.by_index(index).map_err(|error| error.to_string())?;
        Ok(Some(Xml::new(part, self.budget.clone())))
    }

    /// Reads the list of sheets.
    pub(super) fn workbook(&mut self) -> Result<Workbook, String> {
        let root = self.relations("_rels/.rels", "")?;
        let name = root.iter().find(|relation| relation.is("officeDocument"));
        let name = name.map_or_else(|| "xl/workbook.xml".to_owned(), |relation| relation.part.clone());
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
        let relations = self.relations(&format!("{folder}/_rels/{file}.rels"), folder)?;
        let mut workbook = Workbook { sheets: Vec::new(), from_1904: false, relations };
        if Path::new(&name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin")) {
            return Err("its content is in the .xlsb format; save it as .xlsx".into());
        }
        let mut xml = self.part(&name)?.ok_or_else(|| format!("it has no {name}"))?;
        while let Some(piece) = xml.next()? {
            let Piece::Open(element) = piece else { continue };
            if element.is("sheet") {
                let is_hidden = element.attribute("state").is_some_and(|state| state != "visible");
                let relation = element.attribute("id").unwrap_or_default();
                if workbook.sheets.len() >= NAMES {
                    return Err(format!("it has more than {NAMES} sheets"));
                }
                let name = element.attribute("name").unwrap_or_default();
                workbook.sheets.push(Sheet { name, relation, is_hidden });
            } else if element.is("workbookPr") {
                workbook.from_1904 =
                    element.attribute("date1904").is_some_and(|is| is == "1" || is == "true");
            }
        }
        Ok(workbook)
    }

    fn relations(&mut self, name: &str, folder: &str) -> Result<Vec<Relation>, String> {
        let mut relations = Vec::new();
        let Some(mut xml) = self.part(name)? else { return Ok(relations) };
        while let Some(piece) = xml.next()? {
            let Piece::Open(element) = piece else { continue };
            if !element.is("Relationship") {
                continue;
            }
            let of = |name: &str| element.attribute(name).unwrap_or_default();
            let target = of("Target");
            let part = match target.strip_prefix('/') {
                Some(whole) => whole.to_owned(),
                None if folder.is_empty() => target,
                None => format!("{folder}/{target}"),
            };
            if relations.len() >= NAMES {
                return Err(format!("it has more than {NAMES} relations"));
            }
            relations.push(Relation { id: of("Id"), kind: of("Type"), part });
        }
        Ok(relations)
    }
}

impl Relation {
    /// Returns whether it refers to a part of this kind; the namespaces differ between editions of the standard.
    fn is(&self, kind: &str) -> bool {
        self.kind.rsplit('/').next() == Some(kind)
    }
}

impl Workbook {
    /// Returns the part of the first visible sheet that has cells; a chart has none.
    pub(super) fn first_sheet(&self) -> Option<&str> {
        self.sheets.iter().filter(|sheet| !sheet.is_hidden).find_map(|sheet| self.cells_of(sheet))
    }

    /// Returns the part of the worksheet of a name, hidden or not.
    pub(super) fn sheet(&self, name: &str) -> Option<&str> {
        let wanted = name.trim().to_lowercase();
        let is_meant = |sheet: &&Sheet| sheet.name.trim().to_lowercase() == wanted;
        self.sheets.iter().filter(is_meant).find_map(|sheet| self.cells_of(sheet))
    }

    /// Returns the names of the worksheets.
    pub(super) fn worksheets(&self) -> impl Iterator<Item = &str> {
        let with_cells = self.sheets.iter().filter(|sheet| self.cells_of(sheet).is_some());
        with_cells.map(|sheet| sheet.name.as_str())
    }

    fn cells_of(&self, sheet: &Sheet) -> Option<&str> {
        let found = self.relations.iter().find(|relation| relation.id == sheet.relation)?;
        found.is("worksheet").then_some(found.part.as_str())
    }

    /// Returns the part of a kind that occurs once.
    pub(super) fn part(&self, kind: &str) -> Option<&str> {
        self.relations.iter().find(|relation| relation.is(kind)).map(|relation| relation.part.as_str())
    }
}

/// Returns the number of parts that a ZIP64 archive claims; other archives cannot claim more than 65,535. The ZIP
/// reader allocates some hundred bytes for each part before the number can be checked.
fn claimed_parts(file: &mut File) -> io::Result<u64> {
    /// The signature of the ZIP64 end of the directory; the number of parts follows at offset 32.
    const SIGNATURE: &[u8] = b"PK\x06\x06";
    const LENGTH: usize = 40;
    let (mut most, mut window) = (0, Vec::new());
    file.seek(SeekFrom::Start(0))?;
    loop {
        let read = file.by_ref().take(1 << 20).read_to_end(&mut window)?;
        for at in memmem::find_iter(&window, SIGNATURE) {
            if let Some(count) = window.get(at + 32..at + LENGTH) {
                most = most.max(u64::from_le_bytes(count.try_into().unwrap_or_default()));
            }
        }
        if read == 0 {
            return Ok(most);
        }
        window.drain(..window.len().saturating_sub(LENGTH));
    }
}
