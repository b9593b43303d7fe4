//! Address books as programs write them, and as nobody should.

mod formats;
mod groups;
mod random;

use std::path::Path;

use super::book::{Book, Gathering};
use super::format::parse;

/// A book of files, given by name and text.
fn book(name: &str, files: &[(&str, &str)]) -> Book {
    let mut gathering = Gathering::new(name.to_owned(), format!("/books/{name}").into());
    for (file, text) in files {
        gathering.add(&Path::new("/books").join(file), parse(file, text.as_bytes()));
    }
    gathering.finish()
}

/// What is wrong in a book, with its lines.
fn problems(book: &Book) -> Vec<(u32, String)> {
    book.problems.iter().map(|problem| (problem.line, problem.flaw.to_string())).collect()
}
