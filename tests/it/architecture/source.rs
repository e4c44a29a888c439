//! Parses Rust files: their module path, and every name that they mention, with its line.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A violation of a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// A resolved path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Path from the crate's root.
    Ours(Vec<String>),
    /// Path of another crate, or of a name in scope.
    Theirs(Vec<String>),
}

/// One name in the code.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) target: Target,
    pub(super) line: usize,
    /// The name that a `use` binds; `*` for a glob.
    pub(super) bound: Option<String>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// Path from the package's folder, with slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// Module path in the crate.
    pub(super) module: Vec<String>,
    /// Whether the whole file is compiled for tests only.
    pub(super) is_test: bool,
    pub(super) mentions: Vec<Mention>,
    /// Lines with `async` or `.await`.
    pub(super) asyncs: Vec<usize>,
    /// Lines with `.unwrap()`.
    pub(super) unwraps: Vec<usize>,
    /// String literals outside of tests.
    pub(super) strings: Vec<(String, usize)>,
    /// Macros that are called.
    pub(super) macros: Vec<(String, usize)>,
    /// Declared modules: name, line, whether for tests only.
    pub(super) modules: Vec<(Vec<String>, usize, bool)>,
    /// Lines of test code.
    pub(super) test_lines: usize,
}

impl Source {
    fn read(path: &str, text: String) -> Self {
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let module = module_of(path);
        let mut names =
            Names { module: module.clone(), locals: vec![declared(&syntax.items)], ..Names::default() };
        names.visit_file(&syntax);
        let Names { mentions, asyncs, unwraps, strings, macros, modules, test_lines, .. } = names;
        let path = path.to_owned();
        let is_test = false;
        Self { path, text, module, is_test, mentions, asyncs, unwraps, strings, macros, modules, test_lines }
    }

    /// Number of lines without test code.
    pub(super) fn lines(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }
}

/// `src/store/mod.rs` is `[store]`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || inner == "lib" {
        module.pop();
    }
    module
}

/// All Rust files of the package's library and binary.
pub(super) fn read(root: &Path) -> Vec<Source> {
    let mut paths = rust_files(root, "src");
    paths.sort();
    of(paths.into_iter().map(|path| {
        let text = fs::read_to_string(root.join(&path)).unwrap();
        (path, text)
    }))
}

/// The Rust files below a folder, as paths from the package's folder.
pub(super) fn rust_files(root: &Path, folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(rust_files(root, &path));
        } else if path.strip_suffix(".rs").is_some() {
            found.push(path);
        }
    }
    found
}

/// As `read`, from texts.
pub(super) fn of(files: impl IntoIterator<Item = (String, String)>) -> Vec<Source> {
    let mut sources: Vec<Source> = files.into_iter().map(|(path, text)| Source::read(&path, text)).collect();
    let tests: BTreeSet<Vec<String>> = sources
        .iter()
        .flat_map(|source| source.modules.iter())
        .filter(|(_, _, is_test)| *is_test)
        .map(|(module, _, _)| module.clone())
        .collect();
    for source in &mut sources {
        source.is_test = (1..=source.module.len()).any(|depth| tests.contains(&source.module[..depth]));
    }
    sources
}

/// Visits one file and records what it mentions outside of tests.
#[derive(Default)]
struct Names {
    module: Vec<String>,
    locals: Vec<BTreeSet<String>>,
    mentions: Vec<Mention>,
    asyncs: Vec<usize>,
    unwraps: Vec<usize>,
    strings: Vec<(String, usize)>,
    macros: Vec<(String, usize)>,
    modules: Vec<(Vec<String>, usize, bool)>,
    test_lines: usize,
}

impl Names {
    fn mention(&mut self, segments: &[String], span: Span, bound: Option<String>) {
        let Some(first) = segments.first() else { return };
        let is_local = self.locals.last().is_some_and(|locals| locals.contains(first));
        let target = match first.as_str() {
            "crate" | "quipu" => Target::Ours(segments[1..].to_vec()),
            "self" | "super" => {
                let mut place = self.module.clone();
                let mut rest = segments;
                while let Some((head, tail)) = rest.split_first() {
                    match head.as_str() {
                        "self" => {}
                        "super" => drop(place.pop()),
                        _ => break,
                    }
                    rest = tail;
                }
                place.extend_from_slice(rest);
                Target::Ours(place)
            }
            _ if is_local => Target::Ours([&self.module[..], segments].concat()),
            _ => Target::Theirs(segments.to_vec()),
        };
        // `self` alone is a value, not a path.
        if segments.len() > 1 || bound.is_some() || target != Target::Ours(self.module.clone()) {
            self.mentions.push(Mention { target, line: span.start().line, bound });
        }
    }

    fn imports(&mut self, tree: &syn::UseTree, before: &[String]) {
        match tree {
            syn::UseTree::Path(path) => {
                self.imports(&path.tree, &[before, &[path.ident.to_string()]].concat());
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.imports(item, before)),
            syn::UseTree::Name(name) => self.import(before, &name.ident, name.ident.to_string()),
            syn::UseTree::Rename(rename) => self.import(before, &rename.ident, rename.rename.to_string()),
            syn::UseTree::Glob(glob) => {
                self.mention(before, glob.star_token.spans[0], Some("*".to_owned()));
            }
        }
    }

    fn import(&mut self, before: &[String], last: &proc_macro2::Ident, bound: String) {
        let word = last.to_string();
        if word == "self" && !before.is_empty() {
            self.mention(before, last.span(), before.last().cloned());
        } else {
            self.mention(&[before, &[word]].concat(), last.span(), Some(bound));
        }
    }

    /// The parser does not look into macros: search their tokens for paths.
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let is_punct =
            |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let span = first.span();
                    let after_dot = at > 0 && is_punct(at - 1, '.') && !(at > 1 && is_punct(at - 2, '.'));
                    let mut segments = vec![first.to_string()];
                    while is_punct(at + 1, ':') && is_punct(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        segments.push(next.to_string());
                        at += 3;
                    }
                    let line = span.start().line;
                    match segments[0].as_str() {
                        "async" | "await" => self.asyncs.push(line),
                        "unwrap" if after_dot => self.unwraps.push(line),
                        _ if after_dot => {}
                        // A single token in a macro may be anything; two joined by `::` are a path.
                        _ if segments.len() > 1 => self.mention(&segments, span, None),
                        _ => {}
                    }
                    let called = matches!(tokens.get(at + 2), Some(TokenTree::Group(g)) if g.delimiter() != Delimiter::None);
                    if is_punct(at + 1, '!') && called {
                        self.macros.push((segments[segments.len() - 1].clone(), line));
                    }
                }
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse2::<syn::LitStr>(tokens[at].clone().into()) {
                        self.strings.push((text.value(), literal.span().start().line));
                    }
                }
                TokenTree::Punct(_) => {}
            }
            at += 1;
        }
    }

    fn skip(&mut self, item: &impl syn::spanned::Spanned) {
        let span = item.span();
        self.test_lines += span.end().line + 1 - span.start().line;
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
            return;
        }
        if let syn::Item::Mod(module) = item {
            let place = [&self.module[..], &[module.ident.to_string()]].concat();
            self.modules.push((place, module.ident.span().start().line, true));
        }
        self.skip(item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if is_for_tests(&function.attrs) {
            self.skip(function);
        } else {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        self.modules.push((self.module.clone(), module.ident.span().start().line, false));
        if let Some((_, items)) = &module.content {
            self.locals.push(declared(items));
            visit::visit_item_mod(self, module);
            self.locals.pop();
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.imports(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.mention(&segments, first.ident.span(), None);
        }
        visit::visit_path(self, path);
    }

    /// `pub(crate)` and `pub(super)` name a module without using it.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if let Some(name) = called.path.segments.last() {
            self.macros.push((name.ident.to_string(), name.ident.span().start().line));
        }
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.strings.push((text.value(), text.span().start().line));
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.asyncs.extend(signature.asyncness.map(|word| word.span.start().line));
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.asyncs.push(block.async_token.span.start().line);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.asyncs.extend(closure.asyncness.map(|word| word.span.start().line));
        visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_await(&mut self, waiting: &'ast syn::ExprAwait) {
        self.asyncs.push(waiting.await_token.span.start().line);
        visit::visit_expr_await(self, waiting);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" {
            self.unwraps.push(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The modules that a list of items declares. Their names start paths of their own.
fn declared(items: &[syn::Item]) -> BTreeSet<String> {
    items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect()
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}

/// Only plain `#[cfg(test)]` counts; code with a more complex condition is checked.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}
