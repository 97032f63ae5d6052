//! The fields of an exchange that user rules may name: one line each, from which the check, the suggestions, `rules
//! fields`, the JSON Schema and the documentation follow.
//!
//! What is secret has no field: no cookie, no authorization header, no token, no password.

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// true or false.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// Text.
    Text,
    /// An IP address.
    Address,
    /// A list of texts.
    Texts,
}

impl Type {
    /// The word of messages and `rules fields`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Text => "string",
            Self::Address => "address",
            Self::Texts => "list(string)",
        }
    }
}

/// Where a field's value may go besides conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Messages and facts too.
    Shown,
    /// Messages and facts too, but a caller makes up as many values as it likes: a warning when it groups.
    Open,
    /// Conditions and grouping only: it may hold what nobody should read in an alert.
    Kept,
}

/// Everything known of a field without an exchange.
#[derive(Debug)]
pub struct FieldCard {
    /// The field.
    pub field: Field,
    /// `request.method`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Type,
    /// Where they may go.
    pub usage: Use,
    /// The only values that it has; empty if there are others.
    pub words: &'static [&'static str],
    /// One sentence.
    pub doc: &'static str,
}

macro_rules! fields {
    ($($field:ident $name:literal $kind:ident $usage:ident [$($word:literal),*] $doc:literal)+) => {
        /// A field of an exchange.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = $doc] $field,)+
        }

        /// Every field, in the order in which it is documented.
        pub static FIELDS: &[FieldCard] = &[$(FieldCard {
            field: Field::$field,
            name: $name,
            kind: Type::$kind,
            usage: Use::$usage,
            words: &[$($word),*],
            doc: $doc,
        }),+];
    };
}

fields! {
    Method "request.method" Text Shown [] "The method as it was sent."
    Path "request.path" Text Open [] "The path without query, as it was sent."
    Query "request.query" Text Kept [] "The query without its question mark. Never shown."
    RouteName "request.route" Text Shown [] "Method and path template: `GET /orders/{id}`."
    Host "request.host" Text Open [] "The `Host` header."
    UserAgent "request.user_agent" Text Open [] "The `User-Agent` header."
    RequestBytes "request.bytes" Int Shown [] "Bytes of the request's body, where framing tells."
    Operation "request.operation" Text Open [] "The GraphQL operation, where it is read."
    Status "response.status" Int Shown [] "The status code; absent if no answer was seen."
    ResponseBytes "response.bytes" Int Shown [] "Bytes of the response's body, where its head tells."
    LatencyMs "latency_ms" Int Shown [] "Milliseconds from the request to the first byte of its answer."
    ClientAddress "client.address" Address Shown [] "The client: the peer, or what a trusted proxy says. Groups take IPv6 by /64."
    ClientCountry "client.country" Text Shown [] "Its country, two capital letters, if a database of places is configured."
    ClientContinent "client.continent" Text Shown ["AF", "AN", "AS", "EU", "NA", "OC", "SA"] "Its continent, two letters."
    ClientAsn "client.asn" Int Shown [] "Its autonomous system, if a database is configured."
    ClientFamily "client.family" Int Shown [] "A number for the kind of program it says it is; 0 if it does not say."
    ClientTrusted "client.trusted" Bool Shown [] "Whether its address is in `lists.trusted_addresses`."
    ClientAgeS "client.age_s" Int Shown [] "Seconds since the sensor first saw its address."
    ServerAddress "server.address" Address Shown [] "The server's address."
    ServerPort "server.port" Int Shown [] "The server's port."
    Service "service" Text Shown [] "The server's address and port: `10.0.0.1:8080`."
    RouteKind "route.kind" Text Shown ["plain", "login", "logout", "token", "sensitive", "pii", "financial", "admin", "public", "health"] "What the route is for, by `routes` in the configuration or its usual name."
    RouteGuard "route.guard" Text Shown ["unknown", "refuses", "open"] "Whether the route is known to refuse callers without a token."
    Account "account" Text Shown [] "The account that a login names. Anybody may name anybody. Shown in part."
    TokenForm "token.form" Text Shown ["jws", "jwe", "malformed", "opaque"] "What the token looks like; absent if the request has none."
    TokenAlg "token.alg" Text Shown [] "`alg` of its header."
    TokenKid "token.kid" Text Open [] "`kid` of its header."
    TokenIssuer "token.issuer" Text Shown [] "Its `iss`: a claim, unless `token.verified`."
    TokenSubject "token.subject" Text Shown [] "Its `sub`: a claim, unless `token.verified`."
    TokenId "token.id" Text Kept [] "Its `jti`. Never shown."
    TokenAudiences "token.audiences" Texts Kept [] "Its `aud`, at most eight."
    TokenRoles "token.roles" Texts Kept [] "Roles and scopes that it grants, in capitals, at most 32."
    TokenPrivileged "token.privileged" Bool Shown [] "Whether it grants a role of `lists.privileged_roles`."
    TokenVerified "token.verified" Bool Shown [] "Whether its signature is its issuer's."
    TokenSignature "token.signature" Text Shown ["verified", "invalid", "absent", "unchecked"] "What its signature is worth."
    TokenFlaws "token.flaws" Texts Kept [] "What its text alone gives against it: `alg_none`, `embedded_key`, `duplicate_members`, ..."
    TokenExpiresInS "token.expires_in_s" Int Shown [] "Seconds from the request to its `exp`; negative once it has expired."
    TokenLifetimeS "token.lifetime_s" Int Shown [] "Seconds from its `iat` to its `exp`."
    TokenAgeS "token.age_s" Int Shown [] "Seconds since the sensor first saw it."
    TokenCarrier "token.carrier" Text Shown ["authorization", "header", "cookie", "query"] "Where in the request it was."
    Principal "principal" Text Shown [] "The subject of a verified token that is good at the time; absent otherwise. Groups tell issuers apart."
    PrincipalAgeS "principal_age_s" Int Shown [] "Seconds since the principal was first seen."
    PrincipalAddressAgeS "principal_address_age_s" Int Shown [] "Seconds since the principal first used this address (IPv6 by /64); its eight latest are remembered."
    PrincipalCountryAgeS "principal_country_age_s" Int Shown [] "Seconds since the principal was first seen in this country; its eight latest are remembered."
    Suspicions "suspicions" Texts Kept [] "What two readers would read differently: `length_and_chunked`, `duplicate_length`, `bad_length`, ..."
    Coverage "coverage" Text Shown ["whole", "truncated", "gap"] "How much of the exchange was captured."
    Hour "time.hour" Int Shown [] "Hour of the request, 0 to 23, UTC."
    Weekday "time.weekday" Int Shown [] "Day of the request's week, 1 is Monday, UTC."
    UnixS "time.unix_s" Int Shown [] "The request's second since 1970."
    Count "count" Int Shown [] "What the correlation has counted; in `severity` and `message` only."
}

impl Field {
    /// Everything known of it.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the macro writes enum and table in one order")]
    pub fn card(self) -> &'static FieldCard {
        &FIELDS[self as usize]
    }

    /// The field with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        FIELDS.iter().find(|card| card.name == name).map(|card| card.field)
    }

    /// Whether it is about a token, so that its rule is asked once a token and waits for the verdict.
    #[must_use]
    pub fn is_of_token(self) -> bool {
        (Self::TokenForm..=Self::PrincipalCountryAgeS).contains(&self)
    }

    /// Whether the engine has to remember where principals were.
    #[must_use]
    pub const fn is_familiarity(self) -> bool {
        matches!(self, Self::PrincipalAddressAgeS | Self::PrincipalCountryAgeS)
    }
}

/// A message's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The request.
    Request,
    /// The response.
    Response,
}

impl Side {
    /// `request.headers`.
    #[must_use]
    pub const fn headers(self) -> &'static str {
        match self {
            Self::Request => "request.headers",
            Self::Response => "response.headers",
        }
    }
}

/// Headers that hold credentials: they have no place in a rule.
pub const SECRET_HEADERS: [&str; 11] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "dpop",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_finds_its_card() {
        for card in FIELDS {
            assert_eq!(Field::parse(card.name), Some(card.field));
            assert_eq!(card.field.card().name, card.name);
            assert!(card.doc.ends_with(['.']), "{}", card.name);
        }
        assert!(Field::TokenRoles.is_of_token() && Field::Principal.is_of_token());
        assert!(!Field::Account.is_of_token() && !Field::Suspicions.is_of_token());
    }
}
