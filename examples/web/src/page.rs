//! The Content-Security-Policy of a page that is one file.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// The policy for a page that is complete in itself. Only its own `<style>` and `<script>` run, by their hashes, whatever else
/// finds its way into the page. It speaks with its own server alone, cannot be framed, and text cannot become markup or a
/// script by `innerHTML` and the like (CSP 3; Trusted Types). Write the two tags without attributes; further ones do not run.
pub fn csp(page: &str) -> String {
    let page = page.replace("\r\n", "\n"); // the browser hashes the output of its parser (HTML, 13.2.3.5)
    let [style, script] = ["style", "script"].map(|tag| match inside(&page, tag) {
        Some(text) => format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text))),
        None => "'none'".to_owned(),
    });
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
}

/// The text between the first tag of this name and its end tag.
fn inside<'a>(page: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_hashes_of_what_stands_in_the_page() {
        let policy = csp("<style>a{}</style><script>alert(1)\r\n</script>");
        // printf 'a{}' | openssl dgst -sha256 -binary | base64; of the script with \n alone
        for hash in
            ["'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='", "'sha256-MaeD7tQk/YNyd6Pm9J12ROmv0Z93QwNN4VH7v3gI+RI='"]
        {
            assert!(policy.contains(hash), "{policy}");
        }
        assert!(csp("nothing").contains("style-src 'none'; script-src 'none';"));
    }
}
