//! What every plan keeps to.

use std::{collections::BTreeMap, path::Path};

use proptest::{prelude::*, sample::Index};

use super::*;

fn list(text: &str) -> List {
    List::parse(Path::new("domains.csv"), text.to_owned()).expect("a list")
}

fn plan(text: &str, former: Option<&Former>, terms: &Terms) -> Plan {
    Plan::new(&list(text), former, terms).expect("a plan")
}

fn refusals(text: &str, former: Option<&Former>, terms: &Terms) -> Vec<String> {
    match Plan::new(&list(text), former, terms) {
        Err(PlanError::List(found)) => found.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn small() -> Terms {
    Terms {
        san_bytes: 160,
        names_per_certificate: 5,
        ..Terms::default()
    }
}

fn homes(plan: &Plan) -> BTreeMap<String, Option<String>> {
    let home = |it: &Placement| {
        let certificate = it
            .certificate
            .map(|place| plan.certificates[place].name.to_string());
        (it.domain.to_string(), certificate)
    };
    plan.placements.iter().map(home).collect()
}

/// Lines of a list, no domain twice.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let line = ("[a-z]{1,24}", 0usize..10, 0usize..12, 0usize..8);
    prop::collection::btree_map("[a-z0-9]{1,30}", line, 1..60).prop_map(|lines| {
        let line =
            |(label, (_, customer, federation, apart)): (String, (String, usize, usize, usize))| {
                let federation = ["open", "explicit", "provider"][federation.saturating_sub(9)];
                // The customer decides, so that the lines of one don't differ in what they ask for.
                let apart = match (apart, customer) {
                    (0..3, 0) => "all",
                    (0..3, 1..4) => "banks",
                    (0..3, 4 | 5) => "banks mills",
                    (0..3, 6) => "mills",
                    _ => "",
                };
                format!("{label}.example,customer {customer},{federation},{apart}")
            };
        lines.into_iter().map(line).collect()
    })
}

fn text_of(lines: &[String]) -> String {
    format!("domain,customer,federation,apart\n{}\n", lines.join("\n"))
}

fn terms() -> impl Strategy<Value = Terms> {
    (90usize..400, 2usize..20, any::<bool>()).prop_map(|(san_bytes, names, per_customer)| Terms {
        san_bytes,
        names_per_certificate: names,
        mode: if per_customer {
            Mode::PerCustomer
        } else {
            Mode::San
        },
        shared_names: vec!["edge.hoster.example".parse().expect("a name")],
        ..Terms::default()
    })
}

fn check(plan: &Plan, list: &List, terms: &Terms) -> Result<(), TestCaseError> {
    let mut counts: BTreeMap<&SipDomain, usize> = BTreeMap::new();
    let by_domain: BTreeMap<_, _> = list.domains.iter().map(|it| (&it.domain, it)).collect();
    for certificate in &plan.certificates {
        prop_assert!(certificate.san_bytes <= terms.san_bytes);
        prop_assert!(certificate.names().count() <= terms.names_per_certificate);
        prop_assert!(certificate.common_name.as_str().len() <= Terms::COMMON_NAME);
        prop_assert!(
            certificate
                .names()
                .any(|name| name == certificate.common_name)
        );
        let taken = certificate.names().map(|name| san::name_bytes(&name)).sum();
        prop_assert_eq!(san::extension_bytes(taken), certificate.san_bytes);
        for domain in &certificate.domains {
            *counts.entry(domain).or_default() += 1;
            for other in &certificate.domains {
                let (one, other) = (by_domain[domain], by_domain[other]);
                if one.customer != other.customer {
                    prop_assert!(terms.mode == Mode::San);
                    prop_assert!(!one.apart.alone, "{one:?} {other:?}");
                    let shared = one
                        .apart
                        .groups
                        .iter()
                        .any(|it| other.apart.groups.contains(it));
                    prop_assert!(!shared, "{one:?} {other:?}");
                }
            }
        }
    }
    for listed in &list.domains {
        let expected = (listed.federation == Federation::Open).then_some(1);
        prop_assert_eq!(
            counts.get(&listed.domain).copied(),
            expected,
            "{:?}",
            listed
        );
    }
    prop_assert!(plan.lower_bound <= plan.certificates.len());
    let slots: BTreeSet<_> = plan.certificates.iter().map(|it| it.slot).collect();
    prop_assert_eq!(slots.len(), plan.certificates.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn limits_and_wishes_are_kept_and_the_order_makes_no_difference(lines in lines().prop_shuffle(), terms in terms()) {
        let shuffled = list(&text_of(&lines));
        let plan = Plan::new(&shuffled, None, &terms).expect("a plan");
        check(&plan, &shuffled, &terms)?;
        let mut sorted = lines;
        sorted.sort();
        let again = Plan::new(&list(&text_of(&sorted)), None, &terms).expect("a plan");
        prop_assert_eq!(Former::of(&plan), Former::of(&again));
        prop_assert_eq!(plan.placements, again.placements);
    }

    #[test]
    fn adding_and_removing_moves_nothing(lines in lines(), later in any::<Index>(), gone in any::<Index>(), terms in terms()) {
        // What the customers of the whole list ask for is asked for from the beginning.
        let whole = list(&text_of(&lines));
        let without = |place: usize| {
            let mut list = whole.clone();
            list.domains.remove(place);
            list
        };
        let first = Plan::new(&without(later.index(lines.len())), None, &terms).expect("a plan");
        let former = Former::parse(&Former::of(&first).text()).expect("a state");
        prop_assert_eq!(&former, &Former::of(&first));
        for list in [whole.clone(), without(gone.index(lines.len()))] {
            let next = Plan::new(&list, Some(&former), &terms).expect("a plan");
            check(&next, &list, &terms)?;
            let (before, after) = (homes(&first), homes(&next));
            for (domain, home) in after {
                if let Some(former) = before.get(&domain) {
                    prop_assert_eq!(former, &home);
                }
            }
            prop_assert!(next.to_issue() <= 1, "{:?}", next.certificates);
        }
        let same = Plan::new(&whole, Some(&Former::of(&Plan::new(&whole, Some(&former), &terms).expect("a plan"))), &terms).expect("a plan");
        prop_assert!(same.certificates.iter().all(|it| it.issue == Issue::No));
    }
}

#[test]
fn new_domains_go_where_a_certificate_is_issued_anyway() {
    let text = |more: &str| {
        format!(
            "domain\na1.example\na2.example\na3.example\na4.example\na5.example\nb1.example\n{more}"
        )
    };
    let first = plan(&text(""), None, &small());
    assert_eq!(first.certificates.len(), 2);
    assert_eq!(first.lower_bound, 2);
    let former = Former::of(&first);
    let next = plan(&text("b0.example\nc.example\n"), Some(&former), &small());
    let issues: Vec<_> = next
        .certificates
        .iter()
        .map(|it| (it.issue, it.gains))
        .collect();
    assert_eq!(issues, [(Issue::No, 0), (Issue::Again, 2)]);
    assert_eq!(
        next.certificates[1].common_name.as_str(),
        "sip.b1.example",
        "it stays"
    );
    let reason = |domain: &str| {
        let found = next
            .placements
            .iter()
            .find(|it| it.domain.as_str() == domain);
        found.expect("the domain").reason
    };
    assert_eq!(
        [reason("a1.example"), reason("c.example")],
        [Reason::Kept, Reason::Joined]
    );
}

#[test]
fn slots_and_names_of_former_certificates_are_used_again() {
    let all =
        "a1.example\na2.example\na3.example\na4.example\na5.example\nb1.example\nb2.example\n";
    let first = plan(all, None, &small());
    let former = Former::of(&first);
    let rest = plan("b1.example\nb2.example\n", Some(&former), &small());
    let names = |plan: &Plan| {
        plan.certificates
            .iter()
            .map(|it| format!("{} {}", it.name, it.slot))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&rest), ["san-2 1"]);
    assert_eq!(rest.dropped.len(), 1);
    assert_eq!(rest.certificates[0].issue, Issue::No);
    let repacked = plan(
        all,
        Some(&former),
        &Terms {
            repack: true,
            ..small()
        },
    );
    assert_eq!(
        Former::of(&repacked),
        former,
        "the same packing has the same names"
    );
    assert_eq!(repacked.to_issue(), 0);
}

#[test]
fn a_domain_moves_when_asked() {
    let text = "a.example\nb.example\n";
    let former = Former::of(&plan(
        "domain,certificate\na.example,one\nb.example,two\n",
        None,
        &small(),
    ));
    assert_eq!(
        homes(&plan(text, Some(&former), &small()))["b.example"].as_deref(),
        Some("two")
    );
    let moved = Terms {
        moved: ["b.example".parse().unwrap()].into(),
        ..small()
    };
    let next = plan(text, Some(&former), &moved);
    assert_eq!(homes(&next)["b.example"].as_deref(), Some("one"));
    assert_eq!(next.dropped.len(), 1);
    let listed = plan(
        "domain,certificate\na.example,two\nb.example,\n",
        Some(&former),
        &small(),
    );
    assert_eq!(homes(&listed)["a.example"].as_deref(), Some("two"));
    assert_eq!(listed.certificates[0].issue, Issue::Again);
}

#[test]
fn certificates_that_the_list_names_are_there_already() {
    let text = "domain,certificate\na.example,old\nb.example,old\nc.example,\n";
    let terms = Terms {
        names_per_certificate: 2,
        ..small()
    };
    let plan = plan(text, None, &terms);
    let issues: Vec<_> = plan
        .certificates
        .iter()
        .map(|it| (it.name.as_str(), it.issue))
        .collect();
    assert_eq!(issues, [("old", Issue::No), ("san-2", Issue::New)]);
}

#[test]
fn the_hosters_own_domain_is_everywhere() {
    let terms = Terms {
        shared_names: vec!["sip.hoster.example".parse().unwrap()],
        ..small()
    };
    let plan = plan(
        "domain,federation\nhoster.example,\na.example,\nb.example,explicit\n",
        None,
        &terms,
    );
    let reasons: Vec<_> = plan.placements.iter().map(|it| it.reason).collect();
    assert_eq!(
        reasons,
        [Reason::Packed, Reason::Provider, Reason::Everywhere]
    );
    assert_eq!(
        plan.certificates[0].common_name.as_str(),
        "sip.hoster.example"
    );
    assert_eq!(plan.certificates[0].names().count(), 2);
}

#[test]
fn one_certificate_for_each_customer() {
    let terms = Terms {
        mode: Mode::PerCustomer,
        names_per_certificate: 2,
        ..Terms::default()
    };
    let text = "domain,customer\nfabrikam.example,Fabrikam Inc.\nf2.example,Fabrikam Inc.\nf3.example,Fabrikam Inc.\n\
                other.example,fabrikam inc\ncontoso.example,\n";
    let plan = plan(text, None, &terms);
    let names: Vec<_> = plan
        .certificates
        .iter()
        .map(|it| (it.name.to_string(), it.domains.len()))
        .collect();
    let expected = [
        ("fabrikam-inc", 2),
        ("fabrikam-inc-2", 1),
        ("contoso.example", 1),
        ("fabrikam-inc-3", 1),
    ];
    assert_eq!(
        names,
        expected.map(|(name, count)| (name.to_owned(), count))
    );
    assert_eq!(plan.lower_bound, 4);
}

#[test]
fn what_can_not_be_is_reported_with_its_line() {
    let former = Former::of(&plan(
        "domain,customer\na.example,A\nb.example,B\nc.example,C\n",
        None,
        &small(),
    ));
    assert_eq!(
        refusals(
            "domain,customer,apart\na.example,A,banks\nb.example,B,banks\nc.example,C,all\n",
            Some(&former),
            &small()
        ),
        [
            "domains.csv:3:1: error: b.example is in san-1 with A, which is of the group banks as well; let it move by `--move b.example`, or all by `--repack`; or change what the list or the limits ask for",
            "domains.csv:4:1: error: c.example is in san-1 with another customer, and one of the two shares with nobody; let it move by `--move c.example`, or all by `--repack`; or change what the list or the limits ask for",
        ]
    );
    let narrow = Terms {
        names_per_certificate: 1,
        ..small()
    };
    assert_eq!(
        refusals("a.example\nb.example\nc.example\n", Some(&former), &narrow).len(),
        1
    );
    assert!(
        refusals("domain,federation\na.example,provider\n", None, &small())[0]
            .contains("--name edge.hoster.example")
    );
    let long = format!("{}.example\n", "a".repeat(57));
    assert!(refusals(&long, None, &small())[0].contains("at most 64 bytes"));
    let longer = format!("{0}.{0}.{0}.example\n", "a".repeat(57));
    assert!(refusals(&longer, None, &small())[0].contains("takes 188 bytes"));
}

#[test]
fn terms_and_former_plan_must_go_together() {
    let former = Former::of(&plan("a.example\n", None, &small()));
    let other = Terms {
        mode: Mode::PerCustomer,
        ..small()
    };
    let error = Plan::new(&list("a.example\n"), Some(&former), &other).unwrap_err();
    assert!(
        error.to_string().contains("of shared certificates"),
        "{error}"
    );
    let none = Terms {
        san_bytes: 11,
        ..small()
    };
    let error = Plan::new(&list("a.example\n"), None, &none).unwrap_err();
    assert!(error.to_string().contains("has no room"), "{error}");
    assert!(matches!(
        Former::parse("{\"version\": 2}"),
        Err(FormerError::Version { found: 2 })
    ));
    assert!(matches!(Former::parse("[]"), Err(FormerError::Format(_))));
}

use crate::plan::FormerError;
