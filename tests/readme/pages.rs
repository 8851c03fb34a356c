//! README.md and the pages of `docs/`, taken apart: tables, code, headings, links.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub struct Page {
    /// From the project's folder.
    pub path: String,
    pub text: String,
}

/// What stands between two lines of three backticks.
pub struct Block<'p> {
    pub page: &'p str,
    /// What stands behind the first three.
    pub kind: &'p str,
    pub text: String,
}

/// README.md and every page of `docs/`.
pub fn pages() -> Vec<Page> {
    let read = |path: &str| Page { path: path.into(), text: fs::read_to_string(root().join(path)).unwrap() };
    let names = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| format!("docs/{}", name.to_str().unwrap()));
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    assert!(names.len() >= 7, "{names:?}");
    ["README.md"].into_iter().chain(names.iter().map(String::as_str)).map(read).collect()
}

pub fn page(path: &str) -> Page {
    pages().into_iter().find(|page| page.path == path).unwrap_or_else(|| panic!("{path} is missing"))
}

impl Page {
    /// The lines outside of blocks.
    pub fn prose(&self) -> impl Iterator<Item = &str> {
        let mut inside = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        for line in self.text.lines() {
            if let Some(kind) = line.strip_prefix("```") {
                inside = !inside;
                if inside {
                    blocks.push(Block { page: &self.path, kind, text: String::new() });
                }
            } else if inside {
                let text = &mut blocks.last_mut().unwrap().text;
                *text += line;
                *text += "\n";
            }
        }
        assert!(!inside, "{}: a block does not end", self.path);
        blocks
    }

    /// What stands between single backticks, outside of blocks.
    pub fn spans(&self) -> Vec<&str> {
        self.prose().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// What stands under this heading, up to the next one that is not below it.
    pub fn section(&self, heading: &str) -> &str {
        let start = self.text.find(&format!("\n{heading}\n"));
        let start = start.unwrap_or_else(|| panic!("{}: no {heading:?}", self.path)) + 1;
        let (level, mut end, mut inside) = (heading.find(' ').unwrap(), start, false);
        for line in self.text[start..].split_inclusive('\n') {
            inside ^= line.starts_with("```");
            let other = line.find(|c| c != '#').unwrap_or_default();
            if end > start && !inside && (1..=level).contains(&other) {
                break;
            }
            end += line.len();
        }
        &self.text[start..end]
    }

    /// The names by which links know the headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
    }

    /// Where links and pictures lead.
    pub fn links(&self) -> Vec<&str> {
        let lines = self.prose();
        let targets = lines.flat_map(|line| line.split("](").skip(1));
        targets.map(|rest| rest.split(')').next().unwrap()).collect()
    }

    /// The folder in which the page lies.
    pub fn folder(&self) -> PathBuf {
        root().join(&self.path).parent().unwrap().to_path_buf()
    }
}

/// As GitHub makes it of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The cells of all rows of tables, but for their heads.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let bodies = lines
        .iter()
        .enumerate()
        .filter(|(i, line)| is_row(line) && lines.get(i + 1).is_none_or(|next| !next.starts_with("|---")));
    bodies.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks in a cell.
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn a_page_is_taken_apart() {
    let text = "# A\n\n## B `c`, d's\n\n| x | y |\n|---|---|\n| `p` `q` | r |\n\n```sh\n# no\n```\n\n### E\n\n[g](h#i)\n\n## F\n";
    let page = Page { path: "p".into(), text: text.into() };
    assert_eq!(page.anchors(), ["a", "b-c-ds", "e", "f"]);
    assert_eq!(rows(&page.text), [["`p` `q`", "r"]]);
    assert_eq!((page.spans(), page.links()), (vec!["c", "p", "q"], vec!["h#i"]));
    assert!(page.section("## B `c`, d's").ends_with("[g](h#i)\n\n"));
    let blocks = page.blocks();
    assert_eq!((blocks.len(), blocks[0].kind, &*blocks[0].text), (1, "sh", "# no\n"));
}
