//! Leases as they are written and read.

use std::net::IpAddr;

use porin::desired::Leases;
use proptest::prelude::*;

#[test]
fn nonsense_is_left_out_and_reported() {
    let text = r#"
        extra = 1
        [[lease]]
        endpoint = "web"
        address = "fd00::5"
        [[lease]]
        endpoint = "web"
        address = "10.0.0.5"
        released = 3
        [[lease]]
        endpoint = "web"
        address = "10.0.0.6"
        [[lease]]
        endpoint = "-"
        address = "10.0.0.7"
        [[lease]]
        endpoint = "db"
        address = "10.0.0.256"
        [[lease]]
        endpoint = "db"
        address = "fd00::6"
        released = "then"
        [[lease]]
        address = "fd00::7"
    "#;
    let (leases, faults) = Leases::read(text);
    let kept: Vec<_> =
        leases.iter().map(|(a, l)| (a.to_string(), l.endpoint.to_string())).collect();
    assert_eq!(
        kept,
        [("10.0.0.6".to_owned(), "web".to_owned()), ("fd00::5".to_owned(), "web".to_owned())]
    );
    assert_eq!(faults.len(), 6, "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.to_string().contains("10.0.0.256")));
}

#[test]
fn the_written_form_is_for_people() {
    let text = "[[lease]]\nendpoint = \"web\"\naddress = \"fd00::5\"\n\n\
                [[lease]]\nendpoint = \"web\"\naddress = \"10.0.0.5\"\n\n\
                [[lease]]\nendpoint = \"old\"\naddress = \"10.0.0.9\"\nreleased = 0\n";
    let (leases, faults) = Leases::read(text);
    assert_eq!(faults, []);
    assert_eq!(leases.write().unwrap(), text);
    let old: IpAddr = "10.0.0.9".parse().unwrap();
    assert_eq!(leases.lease(old).unwrap().released, Some(0));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = Leases::read(&text);
    }

    #[test]
    fn no_toml_makes_it_panic(
        text in r#"(\[\[lease\]\]\n(endpoint = ("a"|"b"|"-"|1)\n)?(address = ("::1"|"10.0.0.1"|[0-9]{1,3})\n)?(released = (-1|0|9223372036854775807)\n)?){0,6}"#,
    ) {
        let (leases, _) = Leases::read(&text);
        prop_assert!(leases.write().is_ok());
    }
}
