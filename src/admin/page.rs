//! The web page at `/`: its embedded files and security headers. There is no build step. All URLs are
//! relative, so that the page works behind a path prefix of a proxy. The page reads, and explains names with
//! the token.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

#[derive(Clone, Copy, Debug)]
struct PageFile {
    path: &'static str,
    media: &'static str,
    content: &'static [u8],
}

impl IntoResponse for PageFile {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.content.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media));
        headers.extend(GUARDS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async || *file)))
}

pub(super) fn is_part(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const FILES: [PageFile; 7] = [
    PageFile { path: "/", media: HTML, content: include_bytes!("page/index.html") },
    PageFile { path: "/page.js", media: SCRIPT, content: include_bytes!("page/page.js") },
    PageFile { path: "/page.css", media: STYLE, content: include_bytes!("page/page.css") },
    PageFile { path: "/icon.svg", media: "image/svg+xml", content: include_bytes!("page/icon.svg") },
    PageFile { path: "/uplot.js", media: SCRIPT, content: include_bytes!("page/uplot/uPlot.iife.min.js") },
    PageFile { path: "/uplot.css", media: STYLE, content: include_bytes!("page/uplot/uPlot.min.css") },
    PageFile {
        path: "/uplot.license",
        media: "text/plain; charset=utf-8",
        content: include_bytes!("page/uplot/LICENSE"),
    },
];

/// Security headers: no injected script, no content from other origins, no framing or reading by other pages.
const GUARDS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // After an upgrade, an old script must not meet a new server.
    (header::CACHE_CONTROL, "no-cache"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 120_000;

    #[test]
    fn the_page_stays_small() {
        let octets: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(octets <= MAX, "{octets} octets");
    }

    #[test]
    fn the_page_names_nothing_outside_of_itself() {
        for file in FILES.iter().filter(|file| file.path != "/uplot.license") {
            let text = str::from_utf8(file.content).expect("text");
            // uPlot names its origin at the top, and SVG names its namespace.
            let known = ["https://github.com/leeoniya/uPlot", "http://www.w3.org/2000/svg"];
            let text = known.iter().fold(text.to_owned(), |text, url| text.replace(url, ""));
            assert!(!text.contains("://"), "{}", file.path);
        }
    }

    #[test]
    fn the_page_makes_no_markup_of_text() {
        let script = str::from_utf8(include_bytes!("page/page.js")).expect("text");
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "setAttribute(\"style",
        ] {
            assert!(!script.contains(way), "page.js: {way}");
        }
        let html = str::from_utf8(include_bytes!("page/index.html")).expect("text");
        for way in ["style=", "onclick", "<form", "<style", "<base"] {
            assert!(!html.contains(way), "index.html: {way}");
        }
    }

    #[test]
    fn the_page_and_the_registers_know_the_same_invisible_characters() {
        let script = str::from_utf8(include_bytes!("page/page.js")).expect("text");
        let (_, list) = script.split_once("UNSEEN = /[").expect("the list");
        let (list, _) = list.split_once("]/g").expect("its end");
        let numbers = list.replace('-', "").replace("\\x", "\\u00");
        let numbers = numbers.split("\\u").skip(1).map(|number| u32::from_str_radix(number, 16).expect("a number"));
        // The end of a range follows a dash.
        let is_last = list.split('\\').skip(1).map(|number| number.ends_with('-')).collect::<Vec<_>>();
        let (mut ranges, mut begins) = (Vec::new(), true);
        for (number, goes_on) in numbers.zip(is_last) {
            match begins {
                true => ranges.push(number..=number),
                false => {
                    let first = ranges.pop().map_or(number, |range| *range.start());
                    ranges.push(first..=number);
                }
            }
            begins = !goes_on;
        }
        for letter in ('\0'..='\u{ffff}').filter(|letter| !matches!(letter, '\t' | '\n')) {
            let is_in_page = ranges.iter().any(|range| range.contains(&u32::from(letter)));
            assert_eq!(is_in_page, dns::address::is_unseen(letter), "{letter:?}");
        }
    }
}
