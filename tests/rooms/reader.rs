//! What a source file says: what it defines, and the paths and methods by which it takes from others.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A module's path from the crate's root, and what follows it.
pub type Names = Vec<String>;

/// A path that stands in a file.
#[derive(Debug)]
pub struct Taken {
    /// From the root of the crate; or as it stands, if it leads out of it.
    pub names: Names,
    pub is_ours: bool,
    /// It stands in code for tests.
    pub in_test: bool,
}

/// A `use` outside of tests.
#[derive(Debug)]
pub struct Use {
    /// Under which name, or `*`.
    pub name: String,
    pub names: Names,
    pub is_ours: bool,
}

/// On what a method is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    Type(String),
    /// On this field of a type.
    Field(String, String),
    Unknown,
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Source {
    /// Below the sources' folder.
    pub path: String,
    pub room: String,
    pub taken: Vec<Taken>,
    pub defined: BTreeSet<String>,
    pub uses: Vec<Use>,
    /// The files below it that are for tests alone.
    pub test_children: BTreeSet<String>,
    /// Types and their methods.
    pub methods: BTreeSet<(String, String)>,
    /// Types and their fields, with the fields' types.
    pub fields: BTreeMap<(String, String), String>,
    pub calls: BTreeSet<(On, String)>,
}

/// Reads the file of a module; `modules` are all there are.
pub fn read(path: &str, module: Names, text: &str, modules: &BTreeSet<Names>) -> Source {
    let file = syn::parse_file(text).unwrap_or_else(|wrong| panic!("{path}: {wrong}"));
    let room = module.first().cloned().unwrap_or("lib".into());
    let source = Source { path: path.into(), room, ..Source::default() };
    let parameters = BTreeMap::new();
    let mut reader = Reader { modules, at: module, of: None, parameters, in_test: false, source };
    reader.visit_file(&file);
    reader.source
}

/// `cache/lease.rs` is `cache::lease`, and `lib.rs` the root; `main.rs` is a room of its own.
pub fn module_of(path: &str) -> Names {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    if path == "lib" { Names::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || matches!(&attribute.meta, syn::Meta::List(cfg) if cfg.path.is_ident("cfg") && cfg.tokens.to_string() == "test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::{Const, Enum, Fn, Impl, Macro, Mod, Static, Struct, Trait, Type, Use};
    match item {
        Const(syn::ItemConst { attrs, .. })
        | Enum(syn::ItemEnum { attrs, .. })
        | Fn(syn::ItemFn { attrs, .. })
        | Impl(syn::ItemImpl { attrs, .. })
        | Macro(syn::ItemMacro { attrs, .. })
        | Mod(syn::ItemMod { attrs, .. })
        | Static(syn::ItemStatic { attrs, .. })
        | Struct(syn::ItemStruct { attrs, .. })
        | Trait(syn::ItemTrait { attrs, .. })
        | Type(syn::ItemType { attrs, .. })
        | Use(syn::ItemUse { attrs, .. }) => attrs,
        _ => &[],
    }
}

/// The type's name, through references and what merely holds it.
fn type_named(of: &syn::Type) -> Option<String> {
    const HOLD: [&str; 7] = ["Arc", "Rc", "Box", "RefCell", "Mutex", "OnceCell", "Option"];
    let last = match of {
        syn::Type::Reference(of) => return type_named(&of.elem),
        syn::Type::Path(of) => of.path.segments.last()?,
        _ => return None,
    };
    match &last.arguments {
        syn::PathArguments::AngleBracketed(held) if HOLD.iter().any(|name| last.ident == name) => {
            held.args.iter().find_map(|held| match held {
                syn::GenericArgument::Type(of) => type_named(of),
                _ => None,
            })
        }
        _ => Some(last.ident.to_string()),
    }
}

/// Reads one file.
struct Reader<'a> {
    modules: &'a BTreeSet<Names>,
    /// The module that is being read.
    at: Names,
    /// Whose methods are being read.
    of: Option<String>,
    /// The types of the present function's parameters.
    parameters: BTreeMap<String, String>,
    in_test: bool,
    source: Source,
}

impl Reader<'_> {
    /// A path from the crate's root, and whether it is the crate's.
    fn rooted(&self, names: &[String]) -> (Names, bool) {
        let mut module = match names.first().map(String::as_str) {
            Some("crate" | "nearside") => Names::new(),
            Some("self" | "super") => self.at.clone(),
            Some(first) => {
                let child: Names = self.at.iter().cloned().chain([first.to_owned()]).collect();
                if !self.modules.contains(&child) || first == "main" {
                    return (names.to_vec(), false);
                }
                self.at.clone()
            }
            None => return (Names::new(), false),
        };
        for name in names {
            match name.as_str() {
                "crate" | "nearside" | "self" => {}
                "super" => drop(module.pop()),
                _ => module.push(name.clone()),
            }
        }
        (module, true)
    }

    fn take(&mut self, names: &[String]) {
        let (names, is_ours) = self.rooted(names);
        self.source.taken.push(Taken { names, is_ours, in_test: self.in_test });
    }

    fn call(&mut self, on: On, name: String) {
        if !self.in_test {
            self.source.calls.insert((on, name));
        }
    }

    /// What is called by this name: `self`, or a parameter.
    fn named(&self, name: &str) -> Option<String> {
        match name {
            "self" | "Self" => self.of.clone(),
            _ => self.parameters.get(name).cloned(),
        }
    }

    fn on(&self, receiver: &syn::Expr) -> On {
        let name = |expr: &syn::Expr| match expr {
            syn::Expr::Path(path) => self.named(&path.path.get_ident()?.to_string()),
            _ => None,
        };
        let on = match receiver {
            syn::Expr::Field(field) => match &field.member {
                syn::Member::Named(member) => name(&field.base).map(|of| On::Field(of, member.to_string())),
                syn::Member::Unnamed(_) => None,
            },
            other => name(other).map(On::Type),
        };
        on.unwrap_or(On::Unknown)
    }

    /// A path in code: of something, or of a type's method.
    fn path(&mut self, names: &[String]) {
        if let [.., of, name] = names {
            self.take(names);
            let of = self.named(of).unwrap_or(of.clone());
            self.call(On::Type(of), name.clone());
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &mut Names) {
        let (name, leaf) = match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(&path.tree, before);
                before.pop();
                return;
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(tree, before));
                return;
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), Some(name.ident.to_string())),
            syn::UseTree::Rename(name) => (name.rename.to_string(), Some(name.ident.to_string())),
            syn::UseTree::Glob(_) => ("*".to_owned(), None),
        };
        let names: Names = before.iter().cloned().chain(leaf.filter(|leaf| leaf != "self")).collect();
        let name = if name == "self" { names.last().cloned().unwrap_or_default() } else { name };
        self.take(&names);
        if !self.in_test {
            let (names, is_ours) = self.rooted(&names);
            self.source.uses.push(Use { name, names, is_ours });
        }
    }

    /// What a macro is given is not parsed: paths and calls are told by their punctuation.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let ident = |i: usize| match tokens.get(i) {
            Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
            _ => None,
        };
        let is = |i: usize, c: char| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let mut i = 0;
        while i < tokens.len() {
            if let TokenTree::Group(group) = &tokens[i] {
                self.tokens(group.stream());
            }
            let mut names: Names = ident(i).into_iter().collect();
            let parenthesis = |i| matches!(tokens.get(i), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
            if i > 0 && is(i - 1, '.') && parenthesis(i + 1) && !names.is_empty() {
                let of = ident(i.wrapping_sub(2)).and_then(|receiver| self.named(&receiver));
                let of = of.filter(|_| i < 3 || !is(i - 3, '.'));
                self.call(of.map_or(On::Unknown, On::Type), names.remove(0));
            }
            while !names.is_empty() && is(i + 1, ':') && is(i + 2, ':') {
                let Some(name) = ident(i + 3) else { break };
                names.push(name);
                i += 3;
            }
            self.path(&names);
            i += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item::{Const, Enum, Fn, Macro, Static, Struct, Trait, Type};
        let before = self.in_test;
        self.in_test |= is_for_tests(attributes(item));
        let defined = match item {
            Const(item) => Some(&item.ident),
            Enum(item) => Some(&item.ident),
            Fn(item) => Some(&item.sig.ident),
            Macro(item) => item.ident.as_ref(),
            Static(item) => Some(&item.ident),
            Struct(item) => Some(&item.ident),
            Trait(item) => Some(&item.ident),
            Type(item) => Some(&item.ident),
            _ => None,
        };
        self.source.defined.extend(defined.map(|ident| ident.to_string()));
        visit::visit_item(self, item);
        self.in_test = before;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if item.content.is_none() && self.in_test {
            self.source.test_children.insert(name.clone());
        }
        self.at.push(name);
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Names::new());
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.of = type_named(&item.self_ty);
        if let (None, Some(of), false) = (&item.trait_, &self.of, self.in_test) {
            let methods = item.items.iter().filter_map(|item| match item {
                syn::ImplItem::Fn(method) => Some((of.clone(), method.sig.ident.to_string())),
                _ => None,
            });
            self.source.methods.extend(methods);
        }
        visit::visit_item_impl(self, item);
        self.of = None;
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        for field in &item.fields {
            if let (Some(name), Some(of)) = (&field.ident, type_named(&field.ty)) {
                self.source.fields.insert((item.ident.to_string(), name.to_string()), of);
            }
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.parameters.clear();
        for parameter in &signature.inputs {
            if let syn::FnArg::Typed(syn::PatType { pat, ty, .. }) = parameter
                && let (syn::Pat::Ident(name), Some(of)) = (&**pat, type_named(ty))
            {
                self.parameters.insert(name.ident.to_string(), of);
            }
        }
        visit::visit_signature(self, signature);
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        let before = self.in_test;
        self.in_test |= is_for_tests(&method.attrs);
        visit::visit_impl_item_fn(self, method);
        self.in_test = before;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let of = item.ident.to_string();
        let methods = item.items.iter().filter_map(|item| match item {
            syn::TraitItem::Fn(method) => Some((of.clone(), method.sig.ident.to_string())),
            _ => None,
        });
        self.source.methods.extend(methods);
        self.of = Some(of.clone());
        visit::visit_item_trait(self, item);
        self.of = None;
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let on = self.on(&call.receiver);
        self.call(on, call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&names);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}
