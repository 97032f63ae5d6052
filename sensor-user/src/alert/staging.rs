//! What the tests of alerts and sinks are made of.

use std::net::IpAddr;
use std::time::Duration;

use crate::alert::place::{Container, Owner, Pod};
use crate::alert::{Activity, Alert, AlertSettings, Desk, Event, Identity, Incident, Place, Process};
use crate::capture::Time;
use crate::detect::staging::{NOW_S, Stage, token};
use crate::detect::{DetectSettings, Detector, Finding};
use crate::token::facts::Flaws;
use crate::token::{Signature, Token};

/// An `alg-none` finding about the token with this number.
pub(crate) fn finding(number: u8) -> Finding {
    let forged = Token {
        flaws: Flaws::ALG_NONE,
        signature: Signature::Absent,
        ..token(u64::from(number) + 1).of_profile(|p| p.alg = Some("none".into()))
    };
    let stage = Stage::to("GET", "/orders/7").status(401);
    let mut detector = Detector::new(DetectSettings::default());
    let mut found = Vec::new();
    let uses = crate::detect::staging::uses([forged]);
    detector.judge(&stage.exchange, &uses, stage.exchange.ended_at, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A critical alert with everything in it.
pub(crate) fn alert() -> Alert {
    let mut desk = Desk::new(AlertSettings::default());
    let mut finding = finding(1);
    finding.principal.as_mut().unwrap().verified = true;
    finding.severity = crate::detect::Severity::Critical;
    let scene = finding.scene.as_mut().unwrap();
    scene.status = Some(200);
    scene.client = IpAddr::from([10, 0, 3, 7]);
    finding.at = Time::from_secs(NOW_S).plus(Duration::from_millis(123));
    finding.brief = "alg \"none\" accepted".into();
    let mut out = Vec::new();
    desk.admit(finding, &mut out);
    let Event::Alert(alert) = out.remove(0) else { panic!("no alert") };
    assert_eq!(alert.activity, Activity::Create);
    let place = Place {
        name: "shop/orders-7f9c".into(),
        container_id: Some("4f5a".into()),
        pod_uid: None,
        process: Some(Process { pid: 4242, name: "orders".into() }),
        ..Place::default()
    };
    Alert { place: Some(place), ..*alert }
}

/// [`alert`], of which the cluster has told whose pod answered.
pub(crate) fn alert_of_a_pod() -> Alert {
    let pod = Pod {
        uid: "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42".into(),
        namespace: "shop".into(),
        name: "orders-7f9c".into(),
        node: Some("node-1".into()),
        owner: Some(Owner { kind: "Deployment".into(), name: "orders".into() }),
        labels: vec![("app".into(), "orders".into())],
        host_network: false,
    };
    let container = Container {
        name: "main".into(),
        image: Some("registry.example/orders:1.2".into()),
        image_id: Some("registry.example/orders@sha256:ab".into()),
    };
    let place = Place {
        name: pod.full_name(),
        container_id: Some("4f5a".into()),
        pod_uid: Some(pod.uid.to_string()),
        identity: Identity::Known,
        pod: Some(pod.into()),
        container: Some(container),
        ..Place::default()
    };
    Alert { place: Some(place), ..alert() }
}

/// [`alert`], on its way to a sink.
pub(crate) fn event() -> Event {
    Event::Alert(Box::new(alert()))
}

/// An incident of two alerts about one verified principal, just begun.
pub(crate) fn incident() -> Incident {
    let mut desk = Desk::new(AlertSettings::default());
    let mut out = Vec::new();
    for (number, route) in [(1, "GET /orders/{id}"), (2, "GET /invoices/{id}")] {
        let mut finding = finding(number);
        finding.principal.as_mut().unwrap().verified = true;
        let scene = finding.scene.as_mut().unwrap();
        (scene.route, scene.status, scene.response_bytes) = (route.into(), Some(200), Some(1000));
        desk.admit(finding, &mut out);
    }
    out.iter().find_map(Event::incident).expect("an incident").clone()
}
