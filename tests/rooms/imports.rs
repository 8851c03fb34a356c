//! Which file of a crate takes what from which other, told by their code.
//!
//! A name that a file takes through another that merely re-exports it is taken from the file that defines it; so an index
//! (`mod x; pub use x::Y;`) stands above its children and no child stands above it. What comes from another room counts
//! to the room, that is to the file it is called after. A method counts as well, by the type of what it is called on
//! where that is told nearby, else by its name: if that is of several words, none of the standard library's, and of one
//! type of the room alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::reader::{Names, On, Source, Use, module_of, read};

/// Methods of the standard library and of crates that ours may be called like.
const KNOWN: [&str; 5] = ["is_empty", "as_bytes", "into_bytes", "poll_write", "poll_ready"];

/// All files of a crate, by their modules.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<Names, Source>);

impl Tree {
    /// From each file's path below the sources' folder and its text.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files: Vec<_> = files.into_iter().map(|(path, text)| (path, module_of(path), text)).collect();
        let modules: BTreeSet<Names> = files.iter().map(|(_, module, _)| module.clone()).collect();
        let read =
            |(path, module, text): (&str, Names, &str)| (module.clone(), read(path, module, text, &modules));
        Self(files.into_iter().map(read).collect())
    }

    /// All but those that are for tests alone.
    pub fn files(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|(module, _)| !self.is_for_tests(module)).map(|(_, source)| source)
    }

    fn is_for_tests(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|len| {
            let above = self.0.get(&module[..len - 1]);
            above.is_some_and(|above| above.test_children.contains(&module[len - 1]))
        })
    }

    /// The module that defines what this path names; `None` if that is not of this crate.
    fn definer(&self, names: &[String], depth: usize) -> Option<&[String]> {
        let len = (0..=names.len()).rev().find(|len| self.0.contains_key(&names[..*len]))?;
        let (module, source) = self.0.get_key_value(&names[..len])?;
        let Some(name) = names.get(len).filter(|name| !source.defined.contains(*name)) else {
            return Some(module);
        };
        let through = |used: &Use| {
            let rest = names[len + 1..].iter();
            let path: Names = used.names.iter().chain(rest).cloned().collect();
            (used.is_ours && depth < 16).then(|| self.definer(&path, depth + 1)).flatten()
        };
        if let Some(used) = source.uses.iter().find(|used| used.name == *name) {
            return through(used);
        }
        let globs = source.uses.iter().filter(|used| used.name == "*" && used.is_ours && depth < 16);
        let has = |module: &&[String]| self.0.get(*module).is_some_and(|m| m.defined.contains(name));
        let found = globs
            .filter_map(|used| {
                let path: Names = used.names.iter().chain(&names[len..]).cloned().collect();
                self.definer(&path, depth + 1)
            })
            .find(has);
        Some(found.unwrap_or(module))
    }

    /// The module of the room that defines this method.
    fn definer_of_method(&self, room: &str, on: &On, name: &str) -> Option<&[String]> {
        let of_room: Vec<_> = self
            .0
            .iter()
            .filter(|(module, source)| source.room == room && !self.is_for_tests(module))
            .collect();
        let of = match on {
            On::Type(of) => Some(of),
            On::Field(of, field) => {
                let key = (of.clone(), field.clone());
                of_room.iter().find_map(|(_, source)| source.fields.get(&key))
            }
            On::Unknown => None,
        };
        let methods = of_room.iter().flat_map(|(module, source)| {
            source.methods.iter().map(move |(owner, method)| (module.as_slice(), owner, method))
        });
        let mut found = methods.filter(|(_, owner, method)| {
            *method == name && of.map_or(name.contains('_') && !KNOWN.contains(&name), |of| of == *owner)
        });
        let first = found.next().filter(|_| found.next().is_none());
        first.map(|(module, ..)| module)
    }

    /// From which file to which, and what for.
    fn arrows(&self) -> Arrows<'_> {
        let mut arrows = Arrows::new();
        for source in self.files() {
            let mut add = |to: Option<&[String]>, what: String| {
                let target = to.and_then(|module| {
                    let target = self.0.get(module)?;
                    if target.room == source.room { Some(target) } else { self.0.get(&module[..1]) }
                });
                if let Some(target) = target.filter(|target| target.path != source.path) {
                    let what_for: &mut BTreeSet<String> =
                        arrows.entry(&source.path).or_default().entry(&target.path).or_default();
                    what_for.insert(what);
                }
            };
            for taken in source.taken.iter().filter(|taken| taken.is_ours && !taken.in_test) {
                add(self.definer(&taken.names, 0), taken.names.last().cloned().unwrap_or_default());
            }
            for (on, name) in &source.calls {
                add(self.definer_of_method(&source.room, on, name), format!("{name}()"));
            }
        }
        arrows
    }

    /// Files that take from one another in a circle, told with who takes what; none if all is well.
    pub fn circles(&self) -> Vec<Circle> {
        let arrows = self.arrows();
        let below: BTreeMap<&str, BTreeSet<&str>> =
            arrows.keys().map(|path| (*path, reached(&arrows, path))).collect();
        let mut circles: Vec<Circle> = Vec::new();
        for (path, reach) in below.iter().filter(|(path, reach)| reach.contains(*path)) {
            if circles.iter().any(|circle| circle.files.contains(*path)) {
                continue;
            }
            let files = reach.iter().filter(|other| below.get(*other).is_some_and(|b| b.contains(path)));
            let files: BTreeSet<String> = files.map(|file| (*file).to_owned()).collect();
            let mut told = String::new();
            for from in &files {
                for (to, what) in arrows[from.as_str()].iter().filter(|(to, _)| files.contains(**to)) {
                    let what: Vec<&str> = what.iter().map(String::as_str).collect();
                    told += &format!("\n  {from} takes from {to}: {}", what.join(", "));
                }
            }
            circles.push(Circle { files, told });
        }
        circles
    }
}

/// From which file, to which, for what.
type Arrows<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

#[derive(Debug)]
pub struct Circle {
    pub files: BTreeSet<String>,
    pub told: String,
}

fn reached<'a>(arrows: &Arrows<'a>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut next) = (BTreeSet::new(), VecDeque::from([from]));
    while let Some(path) = next.pop_front() {
        next.extend(arrows.get(path).into_iter().flatten().map(|(to, _)| *to).filter(|to| seen.insert(*to)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: (&str, &str) = ("lib.rs", "mod low; mod room;");
    const INDEX: (&str, &str) = (
        "room.rs",
        "mod a; mod b; mod c; #[cfg(test)] mod tests;
         pub use a::A; pub use b::{B, Bs}; use c::C;",
    );

    /// What is told of the circles among the index above and these files.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files = [LIB, INDEX].into_iter().chain(files.iter().copied());
        Tree::of(files).circles().into_iter().map(|circle| circle.told).collect()
    }

    /// As above, where `b` takes nothing and `a` takes `B`.
    fn with(b: &str) -> Vec<String> {
        let a = "use super::B; pub struct A; impl A { pub fn is_low(&self, b: &B) { b.act(); } }";
        circles(&[("room/a.rs", a), ("room/b.rs", b)])
    }

    #[test]
    fn one_that_is_taken_through_the_index_is_taken_from_where_it_is() {
        assert!(with("pub struct B; impl B { pub fn act(&self) {} }").is_empty());
        let told = with("use crate::room::A; pub struct B; impl B { pub fn act(&self) {} }");
        let [told] = &told[..] else { panic!("{told:?}") };
        assert_eq!(told, "\n  room/a.rs takes from room/b.rs: B, act()\n  room/b.rs takes from room/a.rs: A");
    }

    #[test]
    fn every_form_of_a_path_counts() {
        for up in [
            "use super::A as Other;",
            "use super::{a::{self, A}, c};",
            "use super::a;",
            "use crate::room::*; fn f(_: A) {}",
            "use super::a::*;",
            "fn f() -> crate::room::A { todo!() }",
            "fn f() { super::a::A::of(); }",
            "fn f() { println!(\"{}\", super::A::of(1)); }",
            "fn f(x: u8) { use super::A; }",
            "fn f() { let a = g(); a.is_low(); }",
            "fn f() { let a = g(); debug!(a.is_low()); }",
            "struct F { a: std::rc::Rc<A> } impl F { fn f(&self) { self.a.is_low() } }",
            "impl A { fn f(&self) { self.is_low() } }",
        ] {
            assert_eq!(with(up).len(), 1, "{up}");
        }
    }

    #[test]
    fn what_only_looks_like_an_import_does_not_count() {
        for none in [
            "// use super::A;",
            "/// See [`super::A`].\nfn f() -> &'static str { \"super::A\" }",
            "#[cfg(test)] use super::A;",
            "#[cfg(test)] mod tests { use super::super::A; }",
            "struct X; impl X { #[cfg(test)] fn f(_: super::A) {} }",
            "use other::A; fn f(a: &A) { A::of(); }",
            "fn f(x: &X) { x.is_empty(); x.len(); }",
            "pub(in crate::room) fn f() {}",
        ] {
            assert!(with(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_parent_with_code_is_in_a_circle_with_a_child_that_takes_it() {
        let parent = ("room.rs", "mod a; use a::A; pub struct Whole(A);");
        let told = |child| Tree::of([LIB, parent, ("room/a.rs", child)]).circles();
        assert!(told("pub struct A;").is_empty());
        let circles = told("use super::Whole; pub struct A;");
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].files.len(), 2);
    }

    #[test]
    fn files_for_tests_take_what_they_like() {
        let tests = ("room/tests.rs", "use super::A;");
        let a = ("room/a.rs", "pub struct A; #[cfg(test)] use super::tests;");
        assert!(circles(&[tests, a]).is_empty());
        assert!(circles(&[("room/tests/deep.rs", "use crate::room::A;"), tests, a]).is_empty());
    }

    #[test]
    fn another_room_counts_as_a_whole() {
        let low = ("low.rs", "mod x; pub use x::X;");
        let a = ("room/a.rs", "use crate::low::X; pub struct A;");
        assert!(circles(&[low, ("low/x.rs", "pub struct X;"), a]).is_empty());
        let x = ("low/x.rs", "use crate::room::B; pub struct X;");
        let told = circles(&[low, x, a, ("room/b.rs", "pub struct B;")]);
        assert!(told[0].contains("low/x.rs takes from room.rs: B"), "{told:?}");
        assert!(told[0].contains("room/a.rs takes from low.rs: X"), "{told:?}");
    }
}
