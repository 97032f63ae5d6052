//! Which member of a body names the account. Names are compared without case, `_` and `-`, as frameworks bind them.

use arrayvec::ArrayString;
use zeroize::Zeroizing;

use super::scan::{MAX_NAME, Place, Scalar, unescaped};
use super::{MAX_ACCOUNT, shown};

/// Members that name an account, the surest first.
const ACCOUNTS: [&str; 16] = [
    "username",
    "useremail",
    "loginname",
    "loginid",
    "login",
    "userid",
    "email",
    "emailaddress",
    "mail",
    "user",
    "account",
    "accountname",
    "identifier",
    "jusername",
    "phone",
    "phonenumber",
];

/// Names an application rather than a person: counts where nothing else names an account (RFC 6749 section 4.4).
const CLIENT: &str = "clientid";

/// Rank of [`CLIENT`], after every account on either level.
const CLIENT_RANK: u8 = u8::MAX;

/// Rank of accounts one level deep: after those of the outermost object.
const DEEP: u8 = 64;

/// What was found in a body so far.
#[derive(Default)]
pub(super) struct Finds {
    account: Option<(u8, Zeroizing<Vec<u8>>)>,
    /// The last refresh token.
    pub(super) refresh_token: Option<Zeroizing<Vec<u8>>>,
    /// One member named two accounts: readers may differ on which counts. The last one does here, as for most of them.
    pub(super) ambiguous: bool,
}

impl Finds {
    /// The account, as it may be kept.
    pub(super) fn account(&self) -> Option<Box<str>> {
        shown(&self.account.as_ref()?.1, MAX_ACCOUNT)
    }

    /// Takes a scalar of JSON. Text whose end is missing names nobody.
    pub(super) fn offer_scalar(&mut self, member: Option<&str>, place: &Place<'_>, scalar: Scalar<'_>) {
        match scalar {
            Scalar::Text { raw, whole: true } => self.offer(member, place, &mut || unescaped(raw)),
            Scalar::Number(digits) => self.offer(member, place, &mut || Zeroizing::new(digits.to_vec())),
            Scalar::Text { whole: false, .. } => {}
        }
    }

    /// Takes a member; `value` decodes it, which is done only if it is wanted.
    pub(super) fn offer(
        &mut self,
        member: Option<&str>,
        place: &Place<'_>,
        value: &mut dyn FnMut() -> Zeroizing<Vec<u8>>,
    ) {
        let folded = fold(place.name);
        if folded.as_str() == "refreshtoken" {
            // Where the token is in a cookie, scripts send an empty one.
            self.refresh_token = Some(value()).filter(|value| !value.is_empty());
            return;
        }
        let rank = match member {
            Some(member) => is_member(member, place).then_some(0),
            None => rank(&folded, place.outer.is_some()),
        };
        let Some(rank) = rank else { return };
        if self.account.as_ref().is_some_and(|(best, _)| *best < rank) {
            return;
        }
        let value = value();
        if value.trim_ascii().is_empty() {
            return;
        }
        self.ambiguous |= self.account.as_ref().is_some_and(|(best, old)| *best == rank && *old != value);
        self.account = Some((rank, value));
    }
}

/// Whether this is the configured member: `name`, `outer.name`, or `name` one level deep.
fn is_member(member: &str, place: &Place<'_>) -> bool {
    match (member.split_once('.'), place.outer) {
        (Some((outer, name)), Some(held)) if outer == held => name == place.name,
        _ => member == place.name,
    }
}

fn rank(folded: &str, deep: bool) -> Option<u8> {
    if folded == CLIENT {
        return Some(CLIENT_RANK);
    }
    let rank = (0..).zip(ACCOUNTS).find(|(_, name)| *name == folded).map(|(rank, _)| rank)?;
    Some(if deep { rank + DEEP } else { rank })
}

/// A name without case, `_` and `-`.
pub(super) fn fold(name: &str) -> ArrayString<MAX_NAME> {
    let mut out = ArrayString::new();
    for c in name.chars().filter(|c| !matches!(c, '_' | '-')) {
        // As long as the name at most, which fits.
        if out.try_push(c.to_ascii_lowercase()).is_err() {
            break;
        }
    }
    out
}
