//! The page at `/`: its files, which are part of the program, and the headers that let a browser do with them what they need and
//! nothing else.
//!
//! `page/index.html` is one document, `page/page.js` its script, `page/page.css` its style sheet; charts are drawn by uPlot, which
//! lies in `page/uplot/` with its license. There is no build step: what is served is what is edited. The page asks this server alone,
//! for `/api/v1/live`, `/api/v1/history`, `/api/v1/status` and, on demand, `/api/v1/slow` and `/api/v1/names`, all by relative URLs,
//! so that it works behind a path prefix of a reverse proxy. It sends nothing that changes anything.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// A file of the page.
#[derive(Clone, Copy, Debug)]
struct File {
    /// Where it is.
    path: &'static str,
    /// Its type.
    media: &'static str,
    content: &'static [u8],
}

impl IntoResponse for File {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.content.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media));
        headers.extend(GUARDS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}

/// The paths of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async || *file)))
}

/// Whether a path is one of the page.
pub(super) fn is_part(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// Text that is HTML.
const HTML: &str = "text/html; charset=utf-8";
/// Text that is a script.
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Text that is a style sheet.
const STYLE: &str = "text/css; charset=utf-8";

/// All of the page.
const FILES: [File; 7] = [
    File { path: "/", media: HTML, content: include_bytes!("page/index.html") },
    File { path: "/page.js", media: SCRIPT, content: include_bytes!("page/page.js") },
    File { path: "/page.css", media: STYLE, content: include_bytes!("page/page.css") },
    File { path: "/icon.svg", media: "image/svg+xml", content: include_bytes!("page/icon.svg") },
    File { path: "/uplot.js", media: SCRIPT, content: include_bytes!("page/uplot/uPlot.iife.min.js") },
    File { path: "/uplot.css", media: STYLE, content: include_bytes!("page/uplot/uPlot.min.css") },
    File { path: "/uplot.license", media: "text/plain; charset=utf-8", content: include_bytes!("page/uplot/LICENSE") },
];

/// What a browser is told besides: whatever a name or an error might smuggle in is not run, nothing is fetched from elsewhere, nobody
/// shows the page within another, and no other page gets hold of it or of its files.
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
    // After an upgrade an old script does not meet a new server.
    (header::CACHE_CONTROL, "no-cache"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that all of the page may take.
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
            // uPlot says at its top where it comes from, and SVG has its namespace.
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
        // An end of a range stands behind a dash.
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
            assert_eq!(is_in_page, crate::address::is_unseen(letter), "{letter:?}");
        }
    }
}
