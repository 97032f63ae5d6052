//! Secrets that are none: what tutorials, templates and people in a hurry sign with.
//!
//! Our own list: generic words, words of the field, placeholders of documentation, keyboard walks, and these with
//! the endings that password rules provoke. Order is part of the output (a finding names the place): append only.

/// Words that are tried as they are.
const WORDS: &[&str] = &[
    "secret",
    "Secret",
    "SECRET",
    "password",
    "Password",
    "passw0rd",
    "changeme",
    "changeit",
    "change-me",
    "change_me",
    "please-change-me",
    "default",
    "admin",
    "administrator",
    "root",
    "test",
    "testing",
    "demo",
    "example",
    "sample",
    "key",
    "mykey",
    "my-key",
    "my_key",
    "privatekey",
    "private-key",
    "private_key",
    "publickey",
    "signingkey",
    "signing-key",
    "signing_key",
    "signkey",
    "hmac",
    "hmackey",
    "hmac-key",
    "hs256",
    "HS256",
    "jwt",
    "JWT",
    "jwtsecret",
    "jwt-secret",
    "jwt_secret",
    "JWT_SECRET",
    "jwtSecret",
    "jwtkey",
    "jwt-key",
    "jwt_key",
    "jwtSecretKey",
    "jwt-secret-key",
    "jwt_secret_key",
    "secretkey",
    "secret-key",
    "secret_key",
    "secretKey",
    "SECRET_KEY",
    "SecretKey",
    "mysecret",
    "my-secret",
    "my_secret",
    "mySecret",
    "MySecret",
    "mysecretkey",
    "my-secret-key",
    "my_secret_key",
    "mySecretKey",
    "supersecret",
    "super-secret",
    "super_secret",
    "superSecret",
    "supersecretkey",
    "super-secret-key",
    "super_secret_key",
    "topsecret",
    "top-secret",
    "top_secret",
    "verysecret",
    "very-secret",
    "verysecretkey",
    "very-secret-key",
    "thisisasecret",
    "this-is-a-secret",
    "this is a secret",
    "thisismysecret",
    "this is my secret",
    "thisisasecretkey",
    "this-is-a-secret-key",
    "your-secret",
    "your_secret",
    "yoursecret",
    "your-secret-key",
    "your_secret_key",
    "yoursecretkey",
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "your_jwt_secret",
    "your-jwt-secret",
    "a-string-secret-at-least-256-bits-long",
    "secret-key-at-least-32-characters-long",
    "shhhhh",
    "shhh",
    "shared-secret",
    "shared_secret",
    "sharedsecret",
    "client-secret",
    "client_secret",
    "clientsecret",
    "app-secret",
    "app_secret",
    "appsecret",
    "api-secret",
    "api_secret",
    "apikey",
    "api-key",
    "api_key",
    "auth",
    "auth-secret",
    "auth_secret",
    "authsecret",
    "session",
    "session-secret",
    "session_secret",
    "token",
    "token-secret",
    "token_secret",
    "tokensecret",
    "access",
    "access-secret",
    "access_token_secret",
    "ACCESS_TOKEN_SECRET",
    "refresh",
    "refresh-secret",
    "refresh_token_secret",
    "REFRESH_TOKEN_SECRET",
    "access-token-secret",
    "refresh-token-secret",
    "cookie-secret",
    "keyboard cat",
    "encryption-key",
    "encryption_key",
    "master",
    "masterkey",
    "master-key",
    "passphrase",
    "letmein",
    "welcome",
    "qwerty",
    "qwertyuiop",
    "asdfgh",
    "abc123",
    "abcdef",
    "abcdefghijklmnopqrstuvwxyz",
    "hunter2",
    "iloveyou",
    "dragon",
    "monkey",
    "trustno1",
    "foo",
    "bar",
    "foobar",
    "foobarbaz",
    "hello",
    "helloworld",
    "hello world",
    "lorem ipsum",
    "dev",
    "dev-secret",
    "dev_secret",
    "development",
    "local",
    "localhost",
    "staging",
    "production",
    "prod",
    "prod-secret",
    "todo",
    "TODO",
    "fixme",
    "placeholder",
    "replace-me",
    "replace_me",
    "replaceme",
    "insecure",
    "insecure-secret",
    "insecure-secret-key",
    "unsafe",
    "not-so-secret",
    "notsecret",
    "no-secret",
    "none",
    "null",
    "undefined",
    "nil",
    "true",
    "false",
    "node",
    "express",
    "django",
    "django-insecure",
    "flask",
    "laravel",
    "rails",
    "spring",
    "springboot",
    "gin",
    "golang",
    "python",
    "java",
    "php",
    "ruby",
    "rust",
    "user",
    "guest",
    "service",
    "backend",
    "server",
    "gateway",
    "company",
    "kubernetes",
    "docker",
    "cisco",
    "oracle",
    "mysql",
    "postgres",
    "redis",
    "mongo",
    "auth0",
    "keycloak",
    "1",
    "12",
    "123",
    "1234",
    "12345",
    "123456",
    "1234567",
    "12345678",
    "123456789",
    "1234567890",
    "0",
    "0000",
    "00000000",
    "1111",
    "11111111",
    "a",
    "aaaa",
    "aaaaaaaa",
    "x",
    "xxx",
    "xxxxxxxx",
    "*****",
    "0123456789abcdef",
    "01234567890123456789012345678901",
    "12345678901234567890123456789012",
    "00000000000000000000000000000000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abcdefghijklmnopqrstuvwxyz123456",
    "0123456789abcdef0123456789abcdef",
];

/// Stems of the second list.
const STEMS: &[&str] =
    &["secret", "password", "jwt", "admin", "test", "key", "changeme", "jwtsecret", "mysecret", "welcome"];

/// What password rules make people append.
const ENDINGS: &[&str] =
    &["1", "12", "123", "1234", "12345", "123456", "!", "123!", "@123", "2023", "2024", "2025", "2026"];

/// How many there are.
pub const COUNT: usize = WORDS.len() + STEMS.len() * ENDINGS.len();

/// Calls `each` with every listed secret and its place, until it returns true; says which place that was.
pub fn find(mut each: impl FnMut(&[u8]) -> bool) -> Option<u32> {
    let mut place = 0;
    for word in WORDS {
        if each(word.as_bytes()) {
            return Some(place);
        }
        place += 1;
    }
    let mut text = String::new();
    for stem in STEMS {
        for ending in ENDINGS {
            text.clear();
            text.push_str(stem);
            text.push_str(ending);
            if each(text.as_bytes()) {
                return Some(place);
            }
            place += 1;
        }
    }
    None
}

/// Calls `each` with the secret at this place; false if there is none.
pub fn at(place: u32, each: impl FnOnce(&[u8]) -> bool) -> bool {
    let place = place as usize;
    if let Some(word) = WORDS.get(place) {
        return each(word.as_bytes());
    }
    let place = place - WORDS.len();
    match (STEMS.get(place / ENDINGS.len()), ENDINGS.get(place % ENDINGS.len())) {
        (Some(stem), Some(ending)) => each(format!("{stem}{ending}").as_bytes()),
        _ => false,
    }
}

/// The place of a secret in the list.
#[must_use]
pub fn position(secret: &[u8]) -> Option<u32> {
    find(|listed| listed == secret)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn knows_the_usual_ones_and_lists_each_once() {
        for secret in ["secret", "password", "changeme", "jwt", "your-256-bit-secret", "jwtsecret123!"] {
            assert!(position(secret.as_bytes()).is_some(), "{secret}");
        }
        assert_eq!(position(b"Xh2k9Qpl"), None);
        let mut all = HashSet::new();
        find(|listed| {
            let place = u32::try_from(all.len()).unwrap();
            assert!(at(place, |same| same == listed));
            assert!(all.insert(listed.to_vec()), "{} is listed twice", String::from_utf8_lossy(listed));
            false
        });
        assert_eq!(all.len(), COUNT);
    }
}
