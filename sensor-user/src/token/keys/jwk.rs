//! JWK and JWK sets, read strictly (RFC 7517, RFC 7518 section 6, RFC 8037 section 2), and thumbprints (RFC 7638).

use std::borrow::Cow;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::public::{Curve, Public};
use super::{Key, KeyError, KeySet, KeysError, Material};
use crate::token::jose::base64;
use crate::token::jose::json::{self, Value};
use crate::token::settings::Algorithm;

/// Reads `{"keys": [...]}`, or one JWK.
pub(super) fn read_set(text: &[u8], algorithms: &[Algorithm], set: &mut KeySet) -> Result<(), KeysError> {
    let mut keys = None;
    let mut single = false;
    let report = json::members(text, &mut |name, value| match (&*name, value) {
        ("keys", Value::Array(array)) => keys = Some(array),
        ("kty", _) => single = true,
        _ => {}
    });
    if !report.is_strict() {
        return Err(KeysError::Json(report.detail.unwrap_or("not strict JSON")));
    }
    match keys {
        Some(array) => {
            let mut place = 0;
            json::elements(array, &mut |element| {
                set.add(
                    place,
                    match element {
                        Value::Object(text) => read(text, algorithms),
                        _ => Err(KeyError::Json("not an object")),
                    },
                );
                place += 1;
            });
        }
        None if single => set.add(0, read(text, algorithms)),
        None => return Err(KeysError::Json("neither keys nor kty")),
    }
    Ok(())
}

/// Reads one JWK.
///
/// # Errors
/// When it is not strict, not for signatures, or fits none of `algorithms`.
pub fn read(text: &[u8], algorithms: &[Algorithm]) -> Result<Key, KeyError> {
    let members = Members::read(text)?;
    members.check_use()?;
    let material = members.material()?;
    let fitting: Vec<Algorithm>;
    let allowed = match members.alg.as_deref() {
        None => algorithms,
        Some(alg) => {
            // RFC 9864 section 2.2 names the curve in the algorithm; it is the same signature.
            let alg = if alg == "Ed25519" { "EdDSA" } else { alg };
            let own = Algorithm::parse(alg).ok_or(KeyError::OtherUse)?;
            fitting = algorithms.iter().copied().filter(|a| *a == own).collect();
            &fitting
        }
    };
    let mut key = Key::new(&material, members.kid.as_deref(), allowed)?;
    if key.is_public() {
        key.forms.push(("JWK", text.into()));
        if let Some(der) = members.certificate.as_deref().and_then(super::pem::decode) {
            key.forms.push(("certificate", super::pem::write("CERTIFICATE", &der).into_bytes().into()));
        }
    }
    Ok(key)
}

/// The thumbprint of a JWK's text, whatever it may be used for. Cheap: no key is made.
#[must_use]
pub fn thumbprint_of(text: &[u8]) -> Option<[u8; 32]> {
    Some(thumbprint(&Members::read(text).ok()?.material().ok()?))
}

/// The members that matter, as text.
#[derive(Default)]
struct Members<'a> {
    kty: Option<Cow<'a, str>>,
    crv: Option<Cow<'a, str>>,
    kid: Option<Cow<'a, str>>,
    alg: Option<Cow<'a, str>>,
    purpose: Option<Cow<'a, str>>,
    operations: Option<Vec<Cow<'a, str>>>,
    certificate: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    e: Option<Cow<'a, str>>,
    x: Option<Cow<'a, str>>,
    y: Option<Cow<'a, str>>,
    k: Option<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    fn read(text: &'a [u8]) -> Result<Self, KeyError> {
        let mut own = Self::default();
        let mut wrong = None;
        let report = json::members(text, &mut |name, value| {
            let place = match &*name {
                "kty" => &mut own.kty,
                "crv" => &mut own.crv,
                "kid" => &mut own.kid,
                "alg" => &mut own.alg,
                "use" => &mut own.purpose,
                "n" => &mut own.n,
                "e" => &mut own.e,
                "x" => &mut own.x,
                "y" => &mut own.y,
                "k" => &mut own.k,
                "key_ops" => match strings(&value) {
                    Some(operations) => return own.operations = Some(operations),
                    None => return wrong = Some("key_ops is not an array of strings"),
                },
                "x5c" => {
                    own.certificate = strings(&value).and_then(|chain| chain.into_iter().next());
                    return;
                }
                _ => return,
            };
            match value {
                Value::Text(text) => *place = Some(text),
                _ => wrong = Some("a member is not a string"),
            }
        });
        if !report.is_strict() {
            return Err(KeyError::Json(report.detail.unwrap_or("not strict JSON")));
        }
        wrong.map_or(Ok(own), |what| Err(KeyError::Json(what)))
    }

    /// RFC 7517 sections 4.2 and 4.3.
    fn check_use(&self) -> Result<(), KeyError> {
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies =
            self.operations.as_ref().is_none_or(|all| all.iter().any(|operation| operation == "verify"));
        if signs && verifies { Ok(()) } else { Err(KeyError::OtherUse) }
    }

    fn material(&self) -> Result<Material, KeyError> {
        match self.kty.as_deref() {
            Some("RSA") => {
                let n = without_zeros(bytes(self.n.as_deref(), "n")?);
                let e = without_zeros(bytes(self.e.as_deref(), "e")?);
                Ok(Material::Public(Public::Rsa { n, e }))
            }
            Some("EC") => {
                let curve = Curve::ALL.into_iter().find(|c| Some(c.as_str()) == self.crv.as_deref());
                let curve = curve.ok_or(KeyError::Unsupported)?;
                let (x, y) = (bytes(self.x.as_deref(), "x")?, bytes(self.y.as_deref(), "y")?);
                for (coordinate, name) in [(&x, "x"), (&y, "y")] {
                    if coordinate.len() != curve.size() {
                        return Err(KeyError::Member(name));
                    }
                }
                Ok(Material::Public(Public::Ec { curve, point: [&[4], &x[..], &y[..]].concat() }))
            }
            Some("OKP") if self.crv.as_deref() == Some("Ed25519") => {
                let x = bytes(self.x.as_deref(), "x")?;
                let x = <[u8; 32]>::try_from(x.as_slice()).map_err(|_length| KeyError::Member("x"))?;
                Ok(Material::Public(Public::Ed25519(x)))
            }
            Some("oct") => {
                let secret = Zeroizing::new(bytes(self.k.as_deref(), "k")?);
                if secret.is_empty() { Err(KeyError::Member("k")) } else { Ok(Material::Secret(secret)) }
            }
            Some(_) => Err(KeyError::Unsupported),
            None => Err(KeyError::Member("kty")),
        }
    }
}

fn strings<'a>(value: &Value<'a>) -> Option<Vec<Cow<'a, str>>> {
    let Value::Array(text) = value else { return None };
    let mut all = Some(Vec::new());
    json::elements(text, &mut |element| match (element, &mut all) {
        (Value::Text(text), Some(list)) => list.push(text),
        _ => all = None,
    });
    all
}

fn bytes(text: Option<&str>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    text.and_then(|text| base64::strict(text.as_bytes())).ok_or(KeyError::Member(name))
}

/// Java's `BigInteger` puts a zero in front of a modulus; RFC 7518 section 6.3.1.1 says not to, and all readers cope.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    if zeros == 0 { number } else { number.get(zeros..).unwrap_or_default().to_vec() }
}

/// The thumbprint of RFC 7638 section 3 with SHA-256.
#[must_use]
pub fn thumbprint(material: &Material) -> [u8; 32] {
    let text = Zeroizing::new(match material {
        Material::Public(Public::Rsa { n, e }) => {
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64::encode(e), base64::encode(n))
        }
        Material::Public(Public::Ec { curve, point }) => {
            let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len().saturating_sub(1) / 2);
            let (x, y) = (base64::encode(x), base64::encode(y));
            format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.as_str())
        }
        Material::Public(Public::Ed25519(x)) => {
            format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64::encode(x))
        }
        Material::Secret(secret) => {
            let secret = Zeroizing::new(base64::encode(secret));
            format!(r#"{{"k":"{}","kty":"oct"}}"#, &*secret)
        }
    });
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}
