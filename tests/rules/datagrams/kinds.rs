//! What is no plain UDP socket: Unix datagrams, sockets of the program's own, groups.

use super::common::*;

#[test]
fn a_target_that_is_no_address_is_told() {
    let (mut reactor, _) = reactor();
    for (target, kind) in [("localhost:53", ErrorKind::Unsupported), ("7000", ErrorKind::InvalidInput)] {
        let error = reactor.net().bind(target, silent()).expect_err("no address");
        assert_eq!(error.kind(), kind, "{error}");
        let error = reactor.net().bind_to(target, silent()).expect_err("no address");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let taken = local(&mut reactor, key);
    let error = reactor.net().bind(taken, silent()).expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot take datagrams on {taken}: ")), "{error}");
}
