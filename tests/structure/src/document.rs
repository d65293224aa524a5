//! A Markdown document, as far as the tests read it: sections, tables, code spans.

use crate::files;

/// A Markdown document of the project.
#[derive(Clone, Debug)]
pub struct Document {
    /// Relative to the project's root.
    pub path: String,
    text: String,
}

impl Document {
    /// The document at `path`.
    ///
    /// # Panics
    /// It cannot be read.
    pub fn read(path: &str) -> Self {
        Self { path: path.to_owned(), text: files::file(path).text }
    }

    /// The rows of the first table under the heading that begins with `heading`, head and rule left
    /// out.
    ///
    /// # Panics
    /// There is none.
    pub fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let rows: Vec<_> = self
            .text
            .lines()
            .skip_while(|l| {
                !(l.starts_with('#') && l.trim_start_matches(['#', ' ']).starts_with(heading))
            })
            .skip_while(|l| !l.starts_with('|'))
            .take_while(|l| l.starts_with('|'))
            .skip(2)
            .map(|l| l.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect())
            .collect();
        assert!(!rows.is_empty(), "{}: no table under {heading:?}", self.path);
        rows
    }

    /// The `###` sections under the heading that begins with `heading`: title and text of each.
    pub fn sections(&self, heading: &str) -> Vec<(&str, &str)> {
        let mut chapters = self.text.split("\n## ").skip(1);
        let chapter = chapters.find(|c| c.starts_with(heading)).unwrap_or_default();
        let sections = chapter.split("\n### ").skip(1);
        sections.filter_map(|section| section.split_once('\n')).collect()
    }

    /// The code spans of the whole document.
    pub fn code_spans(&self) -> Vec<&str> {
        let mut fenced = false;
        let prose = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        });
        prose.flat_map(code_spans).collect()
    }
}

/// What stands between backquotes in one line.
pub fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}
