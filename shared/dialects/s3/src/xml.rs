//! Reads and writes the subset of XML that S3's operations need, strictly.

use bytes::Bytes;
use http::Response;
use keyway_http::uncached;
use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

use crate::ErrorResponse;
use crate::error_response::malformed_xml;

/// An element with its children or its text. Namespaces are ignored: clients send S3's, others, or none.
pub(crate) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// No valid body of these operations has more elements or depth.
const MOST_ELEMENTS: usize = 256;
const MOST_DEPTH: usize = 8;

impl Element {
    /// Parses a whole document. Accepts character references and XML's five predefined entities. Refuses document types,
    /// and with them every other entity.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ErrorResponse> {
        let text = std::str::from_utf8(body).map_err(|_| malformed_xml())?;
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        let mut root: Option<Self> = None;
        let mut count = 0;
        loop {
            let event = reader.read_event().map_err(|_| malformed_xml())?;
            if matches!(event, Event::Start(_) | Event::Empty(_)) {
                count += 1;
                if root.is_some() || count > MOST_ELEMENTS || open.len() >= MOST_DEPTH {
                    return Err(malformed_xml());
                }
            }
            let closed = match event {
                Event::Start(start) => {
                    open.push(Self::named(start.local_name().as_ref())?);
                    None
                }
                Event::Empty(start) => Some(Self::named(start.local_name().as_ref())?),
                Event::End(_) => Some(open.pop().ok_or_else(malformed_xml)?),
                Event::Text(text) => {
                    Self::add_text(&mut open, &text)?;
                    None
                }
                Event::CData(text) => {
                    Self::add_text(&mut open, &text)?;
                    None
                }
                Event::Comment(_) | Event::Decl(_) => None,
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|_| malformed_xml())?;
                    let name = std::str::from_utf8(&reference).map_err(|_| malformed_xml())?;
                    let stands_for = match character {
                        Some(character) if is_of_xml(character) => character.to_string(),
                        Some(_) => return Err(malformed_xml()),
                        None => resolve_predefined_entity(name)
                            .ok_or_else(malformed_xml)?
                            .to_owned(),
                    };
                    let element = open.last_mut().ok_or_else(malformed_xml)?;
                    element.text.push_str(&stands_for);
                    None
                }
                Event::DocType(_) | Event::PI(_) => return Err(malformed_xml()),
                Event::Eof => break,
            };
            if let Some(element) = closed {
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
        }
        root.filter(|_| open.is_empty()).ok_or_else(malformed_xml)
    }

    fn named(name: &[u8]) -> Result<Self, ErrorResponse> {
        Ok(Self {
            name: String::from_utf8(name.to_vec()).map_err(|_| malformed_xml())?,
            text: String::new(),
            children: Vec::new(),
        })
    }

    fn add_text(open: &mut [Self], bytes: &[u8]) -> Result<(), ErrorResponse> {
        let text = std::str::from_utf8(bytes).map_err(|_| malformed_xml())?;
        match open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text
                .trim_matches(['\u{feff}', ' ', '\t', '\r', '\n'])
                .is_empty() => {}
            None => return Err(malformed_xml()),
        }
        Ok(())
    }

    pub(crate) fn must_be(&self, name: &str) -> Result<(), ErrorResponse> {
        if self.name == name {
            Ok(())
        } else {
            Err(malformed_xml())
        }
    }

    /// Checks that every child has one of these names, that no name repeats, and that there is no text between.
    pub(crate) fn children_among(&self, names: &[&str]) -> Result<(), ErrorResponse> {
        let is_once = |child: &Self| {
            let same = self
                .children
                .iter()
                .filter(|other| other.name == child.name);
            same.count() == 1
        };
        let are_known = self
            .children
            .iter()
            .all(|child| names.contains(&child.name.as_str()) && is_once(child));
        if are_known && self.text.trim().is_empty() {
            Ok(())
        } else {
            Err(malformed_xml())
        }
    }

    /// The children. They must all have this name, without text between.
    pub(crate) fn children_all(&self, name: &str) -> Result<&[Self], ErrorResponse> {
        let fits = self.children.iter().all(|child| child.name == name);
        if fits && self.text.trim().is_empty() {
            Ok(&self.children)
        } else {
            Err(malformed_xml())
        }
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }
}

/// Whether XML 1.0 allows the character. It allows no other control characters, not even by reference.
fn is_of_xml(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A writer of one document.
pub(crate) struct Document {
    text: String,
    root: &'static str,
}

impl Document {
    /// A document with S3's namespace.
    pub(crate) fn new(root: &'static str) -> Self {
        Self::opened(root, &format!("<{root} xmlns=\"{NAMESPACE}\">"))
    }

    /// A document without a namespace, as errors are.
    pub(crate) fn plain(root: &'static str) -> Self {
        Self::opened(root, &format!("<{root}>"))
    }

    fn opened(root: &'static str, tag: &str) -> Self {
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        text.push_str(tag);
        Self { text, root }
    }

    pub(crate) fn within(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.text.extend(["<", name, ">"]);
        write(self);
        self.text.extend(["</", name, ">"]);
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.within(name, |element| element.content(text));
    }

    /// Writes text into the open element.
    pub(crate) fn content(&mut self, text: &str) {
        // Remove control characters: XML cannot represent them, not even by reference.
        let sayable = text.replace(|c: char| c.is_control(), "");
        self.text.push_str(&escape(&sayable));
    }

    /// A 200 answer.
    pub(crate) fn into_response(mut self) -> Response<Bytes> {
        self.text.extend(["</", self.root, ">"]);
        uncached("application/xml", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_written_reads_back() {
        let mut document = Document::new("A");
        document.within("B", |b| b.text("C", "1 < 2 \u{0} \u{1f511}"));
        let written = document.into_response().into_body();
        let text = String::from_utf8(written.to_vec()).unwrap();
        assert!(
            text.ends_with("<B><C>1 &lt; 2  \u{1f511}</C></B></A>"),
            "{text}"
        );
        let plain =
            Element::parse(b"<a:A xmlns:a='x'><B> c\n</B><!-- --><D><![CDATA[<]]></D></a:A>");
        let Ok(plain) = plain else {
            panic!("it is XML")
        };
        plain.must_be("A").unwrap();
        plain.children_among(&["B", "D"]).unwrap();
        assert_eq!(plain.child("B").unwrap().text(), "c");
        assert_eq!(plain.child("D").unwrap().text(), "<");
        let referring = Element::parse(b"<a>&lt;&#65;&#x42;&amp;amp;&quot;&apos;&gt;&#x1F511;</a>");
        assert_eq!(referring.unwrap().text(), "<AB&amp;\"'>\u{1f511}");
    }

    #[test]
    fn xml_unsupported_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(9), "</a>".repeat(9));
        let wide = format!("<a>{}</a>", "<b/>".repeat(256));
        for body in [
            "",
            " ",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "<!DOCTYPE a><a/>",
            "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
            "<a>&b;</a>",
            "<a>&lol;</a>",
            "<a>&#0;</a>",
            "<a>&#x1f;</a>",
            "<a>&#xd800;</a>",
            "<a>&#xfffe;</a>",
            "<a>&#;</a>",
            "<a>&#x110000;</a>",
            "&amp;<a/>",
            "<?php ?><a/>",
            &deep,
            &wide,
        ] {
            assert!(Element::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Element::parse(b"<a>\xff</a>").is_err());
        let text_between = Element::parse(b"<a>x<b/></a>");
        assert!(text_between.is_ok_and(|a| a.children_among(&["b"]).is_err()));
    }
}
