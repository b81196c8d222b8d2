//! A browser as far as a login needs one: it follows redirects and keeps cookies.
use std::collections::HashMap;
use testkit::{Answer, Client};

#[derive(Clone, Default)]
pub(crate) struct Browser {
    /// By server and name.
    cookies: HashMap<(String, String), String>,
}

impl Browser {
    /// One request; gives where it is sent on to.
    async fn step(&mut self, url: &str) -> (Answer, Option<String>) {
        let at = url.find("://").unwrap() + 3;
        let (base, path) = url[at..].find('/').map_or((url, "/"), |slash| url.split_at(at + slash));
        let own = self.cookies.iter().filter(|((server, _), _)| server == base);
        let cookies: Vec<String> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        let answer = Client::new(base).header("cookie", &cookies.join("; ")).get(path).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert((base.to_owned(), name.to_owned()), value.to_owned());
        }
        let to = answer.header("location").to_owned();
        let to = match to.as_str() {
            "" => None,
            path if path.starts_with('/') => Some(format!("{base}{path}")),
            _ => Some(to),
        };
        (answer, to)
    }
    /// The page at the end of all redirects.
    pub(crate) async fn visit(&mut self, url: &str) -> Answer {
        let mut at = url.to_owned();
        for _ in 0..10 {
            match self.step(&at).await {
                (_, Some(to)) => at = to,
                (page, None) => return page,
            }
        }
        panic!("redirected too often, last to {at}")
    }
    /// The first redirect whose URL has that in it; it is not followed.
    pub(crate) async fn until(&mut self, url: &str, part: &str) -> String {
        let mut at = url.to_owned();
        for _ in 0..10 {
            let (page, to) = self.step(&at).await;
            at = to.unwrap_or_else(|| panic!("{at} ends with {}", page.status));
            if at.contains(part) {
                return at;
            }
        }
        panic!("redirected too often, last to {at}")
    }
}
