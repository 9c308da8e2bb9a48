use super::*;

fn parse(text: &str) -> Result<List, Diagnostics> {
    List::parse(Path::new("domains.csv"), text.to_owned())
}

fn mistakes(text: &str) -> Vec<String> {
    let found = parse(text).expect_err("mistakes");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn plain_lines_are_domains() {
    let list = parse("# customers\n\nfabrikam.example\r\n  Bücher.example  \n").unwrap();
    let domains: Vec<_> = list.domains.iter().map(|it| it.domain.as_str()).collect();
    assert_eq!(domains, ["fabrikam.example", "xn--bcher-kva.example"]);
    assert_eq!(&*list.domains[0].customer, "fabrikam.example");
    assert!(list.warnings.is_empty());
}

#[test]
fn columns_come_in_any_order_and_with_any_separator() {
    for separator in [",", ";", "\t"] {
        let text = "\u{feff}Customer|Domain|Federation|Apart|Certificate\n\
                    \"Fabrikam| Inc.\"|fabrikam.example|explicit|banks all|\n\
                    Contoso|contoso.example|||san-1\n\
                    \"Fabrikam| Inc.\"|fabrikam2.example\n\
                    Woodgrove|woodgrove.example||banks"
            .replace('|', separator);
        let list = parse(&text).unwrap();
        let [fabrikam, contoso, second, woodgrove] = list.domains.as_slice() else {
            panic!("{list:?}");
        };
        assert_eq!(*fabrikam.customer, *format!("Fabrikam{separator} Inc."));
        assert_eq!(fabrikam.federation, Federation::Explicit);
        assert!(fabrikam.apart.alone);
        assert_eq!(&*fabrikam.apart.groups[0], "banks");
        assert_eq!(
            fabrikam.apart, second.apart,
            "the customer asked, not the domain"
        );
        assert_eq!(contoso.federation, Federation::Open);
        assert_eq!(contoso.apart, Apart::default());
        assert_eq!(
            contoso.certificate.as_ref().map(Name::as_str),
            Some("san-1")
        );
        assert!(!woodgrove.apart.alone);
        assert!(list.warnings.is_empty(), "{:?}", list.warnings);
    }
}

#[test]
fn every_mistake_is_reported_where_it_is() {
    let text = "domain,customer,federation,apart,certificate\n\
                fabrikam.example,Fabrikam,opn,,\n\
                fabrikam,Fabrikam,open,,\n\
                ,Contoso,,,\n\
                contoso.example,\"Contoso,,,\n\
                litware.example,Litware,,-,/\n\
                FABRIKAM.example,Other,,,\n\
                a.example,A,,,,more\n";
    assert_eq!(
        mistakes(text),
        [
            "domains.csv:2:27: error: \"opn\" is no kind of federation; write `open`",
            "domains.csv:3:1: error: fabrikam is no domain that partners can look up: it is a single label; write the whole SIP domain, such as fabrikam.example",
            "domains.csv:4:1: error: this line names no domain; write the SIP domain, such as fabrikam.example, or leave the line out",
            "domains.csv:5:17: error: a quotation mark is not closed on this line; close it, and write \"\" for a mark that is part of the text",
            "domains.csv:6:26: error: the name \"-\" does not start with a letter or digit; write `all`, or names of groups with spaces between them, such as `banks`",
            "domains.csv:6:28: error: the name \"/\" does not start with a letter or digit; write up to 63 letters, digits, `.`, `_` and `-`, the first of them a letter or digit",
            "domains.csv:7:1: error: fabrikam.example is there twice, and the lines differ (the first one: domains.csv:2:1); leave one out",
            "domains.csv:8:16: error: this line has 6 fields, and there are 5 columns; put text that has the separator in it into quotation marks",
        ]
    );
}

#[test]
fn headers_are_checked() {
    assert_eq!(
        mistakes("domain,custmer,domain,zebra\na.example\n"),
        [
            "domains.csv:1:8: error: there is no column \"custmer\"; write `customer`",
            "domains.csv:1:16: error: the column \"domain\" is there twice; leave one out",
            "domains.csv:1:23: error: there is no column \"zebra\"; leave it out, or write one of `domain`, `customer`, `federation`, `apart`, `certificate`",
        ]
    );
    assert_eq!(
        mistakes("fabrikam.example,Fabrikam\n"),
        [
            "domains.csv:1:1: error: this line has more than a domain, and no header above it says what; write the names of the columns into the first line, such as `domain,customer`"
        ]
    );
    assert!(mistakes("# nothing\n")[0].contains("there is no domain in the list"));
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let list = parse(
        "domain,customer,apart\n\
         bücher.example,B,banks\n\
         a.example,A,bank\n\
         c.example,C,banks\n\
         xn--bcher-kva.example,B,banks\n",
    )
    .unwrap();
    let warnings: Vec<_> = list.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "domains.csv:3:1: warning: A is the only customer of the group \"bank\"; was `banks` meant?",
            "domains.csv:5:1: warning: xn--bcher-kva.example is there twice (the first one: domains.csv:2:1); leave one out",
        ]
    );
    assert_eq!(list.domains.len(), 3);
}
