//! Comparisons, and lists that something is looked for in: both sides are of one type, or of two that go together.

use std::sync::Arc;

use hashbrown::HashSet;
use ipnet::IpNet;

use super::{Check, Typed};
use crate::config::near::nearest;
use crate::config::user::lex::{Complaint, Place};
use crate::config::user::parse::{Kind, Tree};
use crate::config::word::Word as _;
use crate::detect::user::expr::{Compare, Node};
use crate::detect::user::field::Type;
use crate::detect::user::set::Set;

impl Check<'_> {
    pub(super) fn compare(&mut self, sign: &str, left: &Tree, right: &Tree, place: &Place) -> Option<Typed> {
        let how = match sign {
            "==" => Compare::Eq,
            "!=" => Compare::Ne,
            "<" => Compare::Lt,
            "<=" => Compare::Le,
            ">" => Compare::Gt,
            _ => Compare::Ge,
        };
        let (a, b) = (self.tree(left), self.tree(right));
        let ((a, kind), (b, other)) = (a?, b?);
        let (a, b) = match (kind, other) {
            (Type::Address, Type::Text) => (a, self.address(&b, right)?),
            (Type::Text, Type::Address) => (self.address(&a, left)?, b),
            _ => (a, b),
        };
        let address = [kind, other].contains(&Type::Address) && [kind, other].contains(&Type::Text);
        if (kind != other && !address) || kind == Type::Texts {
            let message = format!("{} and {} cannot be compared", kind.as_str(), other.as_str());
            let complaint = Complaint::new(place.clone(), message);
            return self.complain(match (&a, kind, &b, other) {
                (_, Type::Int, Node::Text(text), _) if text.parse::<i64>().is_ok() => {
                    complaint.hint(format!("write {text} without quotes"))
                }
                (_, Type::Texts, _, Type::Text) => complaint.hint("write \"x\" in list"),
                _ => complaint,
            });
        }
        if (kind == Type::Address || kind == Type::Bool) && !matches!(how, Compare::Eq | Compare::Ne) {
            let message = format!("{} has no order", kind.as_str());
            return self.complain(Complaint::new(place.clone(), message));
        }
        self.check_word(&a, &b, right);
        self.check_word(&b, &a, left);
        // A constant stands on the right, where the guard looks for it.
        let constant = |node: &Node| matches!(node, Node::Int(_) | Node::Text(_) | Node::Address(_));
        if constant(&a) && !constant(&b) {
            let turned = match how {
                Compare::Lt => Compare::Gt,
                Compare::Le => Compare::Ge,
                Compare::Gt => Compare::Lt,
                Compare::Ge => Compare::Le,
                same => same,
            };
            return Some((Node::Compare(turned, Box::new([b, a])), Type::Bool));
        }
        Some((Node::Compare(how, Box::new([a, b])), Type::Bool))
    }

    fn address(&mut self, node: &Node, tree: &Tree) -> Option<Node> {
        let Node::Text(text) = node else {
            self.complain(Complaint::new(tree.place.clone(), "an address is compared with a constant"));
            return None;
        };
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Some(Node::Address(address.to_canonical()));
        }
        let complaint = Complaint::new(tree.place.clone(), format!("`{text}` is no address"));
        let network = text.parse::<IpNet>().is_ok();
        self.complain(if network { complaint.hint("write cidr(address, \"network\")") } else { complaint });
        None
    }

    /// A field of few words is compared with one of them, or never matches.
    fn check_word(&mut self, field: &Node, constant: &Node, tree: &Tree) {
        let (Node::Field(field), Node::Text(text)) = (field, constant) else { return };
        let card = field.card();
        if card.words.is_empty() || card.words.contains(&&**text) {
            return;
        }
        let complaint = Complaint::new(tree.place.clone(), format!("`{}` is never `{text}`", card.name));
        let hint = match nearest(text, card.words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", card.words.join(", ")),
        };
        self.complaints.push(complaint.hint(hint));
    }

    pub(super) fn within(&mut self, left: &Tree, right: &Tree) -> Option<Typed> {
        let (item, kind) = self.tree(left)?;
        let constants: Vec<(String, Place, bool)> = match &right.kind {
            Kind::List(items) => {
                let mut constants = Vec::new();
                for item in items {
                    match &item.kind {
                        Kind::Text(text) => constants.push((text.clone(), item.place.clone(), true)),
                        Kind::Int(number) => constants.push((number.to_string(), item.place.clone(), false)),
                        _ => {
                            self.complain(Complaint::new(item.place.clone(), "a list holds constants only"));
                        }
                    }
                }
                constants
            }
            Kind::Name(name) if self.names.lists.contains_key(name) => {
                let list = self.names.lists.get(name).into_iter().flatten();
                list.map(|text| (text.clone(), right.place.clone(), kind != Type::Int)).collect()
            }
            _ => {
                let list = self.wanted(right, Type::Texts, "what follows `in`")?;
                if kind != Type::Text {
                    let message = format!("the list holds string, and this is {}", kind.as_str());
                    return self.complain(Complaint::new(left.place.clone(), message));
                }
                return Some((Node::Among(Box::new([item, list])), Type::Bool));
            }
        };
        let set = self.set(&item, kind, constants, &left.place)?;
        Some((Node::In(Box::new(item), Arc::new(set)), Type::Bool))
    }

    fn set(
        &mut self,
        item: &Node,
        kind: Type,
        constants: Vec<(String, Place, bool)>,
        at: &Place,
    ) -> Option<Set> {
        let before = self.complaints.len();
        let set = match kind {
            Type::Text => {
                let mut texts = HashSet::new();
                for (text, place, is_text) in constants {
                    if !is_text {
                        let message = "the list holds a number, and what is looked for is string";
                        self.complain(Complaint::new(place, message).hint("put it in quotes"));
                        continue;
                    }
                    let tree = Tree { place, kind: Kind::Bool(true) };
                    self.check_word(item, &Node::Text(text.as_str().into()), &tree);
                    texts.insert(text.into());
                }
                Set::Texts(texts)
            }
            Type::Int => {
                let mut numbers = HashSet::new();
                for (text, place, is_text) in constants {
                    if let Some(number) = text.parse().ok().filter(|_| !is_text) {
                        numbers.insert(number);
                    } else {
                        let message = format!("the list holds `{text}`, and what is looked for is int");
                        self.complain(Complaint::new(place, message));
                    }
                }
                Set::Ints(numbers)
            }
            Type::Address => {
                let mut nets = Vec::new();
                for (text, place, _) in constants {
                    match IpNet::parse(&text) {
                        Ok(net) => nets.push(net),
                        Err(wrong) => {
                            let complaint =
                                Complaint::new(place, format!("`{text}` is no address and no network"));
                            self.complaints.push(Complaint { hint: wrong.hint, ..complaint });
                        }
                    }
                }
                Set::Nets(nets.into_iter().collect())
            }
            Type::Bool | Type::Texts => {
                let message = format!("{} is in no list", kind.as_str());
                self.complain(Complaint::new(at.clone(), message));
                return None;
            }
        };
        (self.complaints.len() == before).then_some(set)
    }
}
