//! Types that contain themselves.

use std::collections::{BTreeSet, HashMap};

use crate::limits::{MAX_CIRCLE, MAX_TYPEDEF_CHAIN};

use super::{Form, Type, TypeDefinition, TypeKind};

/// The types of one file, by name.
pub(super) struct Graph<'a> {
    types: &'a [TypeDefinition],
    index: HashMap<&'a str, usize>,
}

/// A type that contains itself without end, and why.
pub(super) struct Endless {
    pub(super) name: String,
    pub(super) message: String,
}

type Edges = Vec<Vec<usize>>;

impl<'a> Graph<'a> {
    pub(super) fn new(types: &'a [TypeDefinition]) -> Self {
        let names = types.iter().enumerate();
        Self {
            types,
            index: names.map(|(index, of)| (of.name.as_str(), index)).collect(),
        }
    }

    /// The types that contain themselves behind a `*` or within an array of variable length; an error if one does
    /// without.
    pub(super) fn check(&self) -> Result<BTreeSet<String>, Endless> {
        self.typedefs()?;
        let by_value = self.edges(|form| matches!(form, Form::Plain(_) | Form::Fixed(_, _)));
        let endless = core(&by_value);
        if let Some(first) = endless.iter().position(|alive| *alive) {
            return Err(self.describe(first, &by_value, &endless));
        }
        // An array of variable length needs no box in Rust, so that only these count.
        let pointers = self.edges(|form| !matches!(form, Form::Variable(_, _)));
        let names = self.types.iter().zip(cyclic(&pointers));
        Ok(names
            .filter(|(_, cyclic)| *cyclic)
            .map(|(of, _)| of.name.clone())
            .collect())
    }

    /// A typedef leads to something else than itself.
    fn typedefs(&self) -> Result<(), Endless> {
        for start in 0..self.types.len() {
            let mut chain = Vec::new();
            let mut next = Some(start);
            while let Some(current) = next {
                let TypeKind::Typedef(form) = &self.types[current].kind else {
                    break;
                };
                let message = if chain.contains(&current) {
                    Some(format!(
                        "`{}` is defined by itself",
                        self.types[current].name
                    ))
                } else if chain.len() == MAX_TYPEDEF_CHAIN {
                    Some(format!(
                        "more than {MAX_TYPEDEF_CHAIN} typedefs stand for one another"
                    ))
                } else {
                    None
                };
                if let Some(message) = message {
                    let name = self.types[start].name.clone();
                    return Err(Endless { name, message });
                }
                chain.push(current);
                next = self.target(form);
            }
        }
        Ok(())
    }

    fn target(&self, form: &Form) -> Option<usize> {
        match form.element()? {
            Type::Named(name) => self.index.get(name.as_str()).copied(),
            Type::Primitive(_) => None,
        }
    }

    fn edges(&self, counts: impl Fn(&Form) -> bool) -> Edges {
        let of = |definition: &TypeDefinition| {
            let forms = forms(definition).into_iter();
            let counted = forms.filter(|form| counts(form));
            counted.filter_map(|form| self.target(form)).collect()
        };
        self.types.iter().map(of).collect()
    }

    /// Follows the edges from `start` until a type comes a second time.
    fn describe(&self, start: usize, edges: &Edges, alive: &[bool]) -> Endless {
        let mut path = vec![start];
        let mut places = HashMap::from([(start, 0)]);
        let mut begin = 0;
        // Whatever is alive has an edge to something alive, so that a type does come again.
        while let Some(next) = path
            .last()
            .and_then(|last| edges[*last].iter().find(|next| alive[**next]))
        {
            path.push(*next);
            if let Some(first) = places.insert(*next, path.len() - 1) {
                begin = first;
                break;
            }
        }
        let circle = path[begin..].iter();
        let mut names: Vec<&str> = circle
            .map(|index| self.types[*index].name.as_str())
            .collect();
        let name = names.first().copied().unwrap_or_default().to_owned();
        if names.len() > MAX_CIRCLE {
            names.truncate(MAX_CIRCLE);
            names.push("…");
        }
        let circle = names.join(" contains ");
        let message = format!(
            "a value would be of endless size ({circle}): put a `*` or an array of variable length in between"
        );
        Endless { name, message }
    }
}

/// What a type contains.
pub(crate) fn forms(definition: &TypeDefinition) -> Vec<&Form> {
    match &definition.kind {
        TypeKind::Typedef(form) => vec![form],
        TypeKind::Enum(_) => Vec::new(),
        TypeKind::Struct(fields) => fields.iter().map(|field| &field.form).collect(),
        TypeKind::Union(union) => {
            let arms = union.arms.iter().filter_map(|arm| arm.field.as_ref());
            let default = union.default.iter().flatten();
            let fields = arms.chain(default).chain([&union.discriminant]);
            fields.map(|field| &field.form).collect()
        }
    }
}

fn reverse(edges: &Edges) -> Edges {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        for to in targets {
            reversed[*to].push(from);
        }
    }
    reversed
}

/// What is left when nodes without a way on are taken away until there are none: the cycles and what leads to them.
fn core(edges: &Edges) -> Vec<bool> {
    let backwards = reverse(edges);
    let mut ways: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut ends: Vec<usize> = (0..edges.len()).filter(|node| ways[*node] == 0).collect();
    let mut alive = vec![true; edges.len()];
    while let Some(end) = ends.pop() {
        alive[end] = false;
        for before in &backwards[end] {
            ways[*before] -= 1;
            if ways[*before] == 0 {
                ends.push(*before);
            }
        }
    }
    alive
}

/// The nodes from which a way leads back to themselves: Kosaraju's search for components, without recursion.
fn cyclic(edges: &Edges) -> Vec<bool> {
    let mut seen = vec![false; edges.len()];
    let mut finished = Vec::with_capacity(edges.len());
    for start in 0..edges.len() {
        visit(edges, start, &mut seen, &mut finished);
    }
    let backwards = reverse(edges);
    let mut seen = vec![false; edges.len()];
    let mut cyclic = vec![false; edges.len()];
    for start in finished.into_iter().rev() {
        let mut component = Vec::new();
        visit(&backwards, start, &mut seen, &mut component);
        let is_cycle = component.len() > 1 || edges[start].contains(&start);
        for node in component {
            cyclic[node] = is_cycle;
        }
    }
    cyclic
}

/// Adds what can be reached from `start` and has not been seen, each node behind those that it leads to.
fn visit(edges: &Edges, start: usize, seen: &mut [bool], finished: &mut Vec<usize>) {
    if std::mem::replace(&mut seen[start], true) {
        return;
    }
    let mut path = vec![(start, 0)];
    while let Some((node, next)) = path.pop() {
        let Some(target) = edges[node].get(next) else {
            finished.push(node);
            continue;
        };
        path.push((node, next + 1));
        if !std::mem::replace(&mut seen[*target], true) {
            path.push((*target, 0));
        }
    }
}
