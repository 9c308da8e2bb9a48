//! `[[pool]]`

use toml::de::DeValue;

use crate::config::{
    decode::{Decode, Input, List, Located, Section, number_in},
    location::Location,
    model::{EdgeRef, Member, Pool},
    values::Balance,
};

pub(in crate::config) struct PoolDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) members: Option<List<MemberDraft>>,
    pub(in crate::config) balance: Option<Located<Balance>>,
}

pub(in crate::config) struct MemberDraft {
    pub(in crate::config) edge: Located<String>,
    weight: u16,
}

impl PoolDraft {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let draft = Self {
            at: section.at().clone(),
            name: section.required("name", "\"edges-a\""),
            members: section.filled_list("edges", "[\"edge-a\"]"),
            balance: section.optional("balance"),
        };
        section.finish();
        draft
    }

    pub(super) fn build(self, edge: impl Fn(&str) -> Option<EdgeRef>) -> Option<Pool> {
        let members = self.members?.values().into_iter();
        Some(Pool {
            balance: self.balance.map_or(Balance::Maglev, |it| it.value),
            name: self.name?.value.parse().ok()?,
            members: members
                .map(|member| {
                    Some(Member {
                        edge: edge(&member.edge.value)?,
                        weight: member.weight,
                    })
                })
                .collect::<Option<_>>()?,
        })
    }
}

impl Decode for MemberDraft {
    /// An Edge's name, or a table with the name and a weight.
    fn decode(input: &Input<'_>) -> Option<Self> {
        match input.value {
            DeValue::String(name) => Some(Self {
                edge: Located {
                    value: name.to_string(),
                    at: input.at.clone(),
                },
                weight: 1,
            }),
            DeValue::Table(_) => {
                let mut section = Section::of("an Edge of a [[pool]]", input)?;
                let edge = section.required("name", "\"edge-a\"");
                let weight = section
                    .input("weight")
                    .map_or(Some(1), |input| number_in(&input, 1..=256));
                section.finish();
                Some(Self {
                    edge: edge?,
                    weight: weight?.try_into().ok()?,
                })
            }
            _ => {
                input.mismatch(
                    "names of Edges",
                    "write \"edge-a\", or { name = \"edge-a\", weight = 2 }",
                );
                None
            }
        }
    }
}
