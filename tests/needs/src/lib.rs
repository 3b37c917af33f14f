//! The attribute `#[needs(…)]`: a test, and what it cannot run without.
//!
//! No crate that was found does this. `test-with` looks while it compiles, and marks the test as ignored: a binary that is
//! built here and run in an emulated machine would answer for the wrong one, and an ignored test passes in CI.
//! `libtest-mimic` and its like replace the harness, and with it `--list`, `--exact` and the names that scripts use.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{ToTokens, quote};
use syn::{
    Error, Expr, ExprCall, ExprPath, ItemFn, Lit, Path, ReturnType, Token, parse_macro_input,
    punctuated::Punctuated,
};

/// Makes a function a test that runs only where everything is there that it names; else the kit says why it does not, and
/// under CI it fails.
///
/// ```ignore
/// #[needs(root, "bpftool", part("helm"))]
/// fn a_pod_is_armed() { … }
/// ```
///
/// | named | asks |
/// |---|---|
/// | `root` | `sidestep_kit::needs::root()` |
/// | `"bpftool"` | `sidestep_kit::needs::program("bpftool")` |
/// | `part("helm")` | `sidestep_kit::needs::part("helm")` |
/// | `crate::has_tls` | `crate::has_tls()`, of the suite's own: `Result<(), String>` |
#[proc_macro_attribute]
pub fn needs(named: TokenStream, test: TokenStream) -> TokenStream {
    let named = parse_macro_input!(named with Punctuated::<Expr, Token![,]>::parse_terminated);
    let test = parse_macro_input!(test as ItemFn);
    expand(&named, &test)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(named: &Punctuated<Expr, Token![,]>, test: &ItemFn) -> syn::Result<Tokens> {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = test;
    if named.is_empty() {
        return Err(Error::new_spanned(
            &sig.ident,
            "say what the test needs, or write #[test]",
        ));
    }
    if !matches!(sig.output, ReturnType::Default) {
        return Err(Error::new_spanned(
            &sig.output,
            "a test that may be skipped returns nothing",
        ));
    }
    let questions = named
        .iter()
        .map(question)
        .collect::<syn::Result<Vec<_>>>()?;
    // In this order, and none after one that fails.
    Ok(quote! {
        #[test]
        #(#attrs)*
        #vis #sig {
            if ::sidestep_kit::needs::are_met(|| { #(#questions?;)* Ok(()) }) #block
        }
    })
}

/// What is asked: an expression of type `Result<(), String>`.
fn question(named: &Expr) -> syn::Result<Tokens> {
    match named {
        Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)) => {
            Ok(quote!(::sidestep_kit::needs::program(#literal)))
        }
        Expr::Path(ExprPath { path, .. }) => {
            let function = of_the_kit(path);
            Ok(quote!(#function()))
        }
        Expr::Call(ExprCall { func, args, .. }) if matches!(**func, Expr::Path(_)) => {
            let Expr::Path(ExprPath { path, .. }) = &**func else {
                unreachable!("just matched");
            };
            let function = of_the_kit(path);
            Ok(quote!(#function(#args)))
        }
        other => Err(Error::new_spanned(
            other,
            "name a program in quotes, or a function that says why the test cannot run",
        )),
    }
}

/// A word alone is the kit's; a path is as it is written. That `self::` was not necessary is true of the expansion alone, so
/// the path counts as part of that.
fn of_the_kit(path: &Path) -> Tokens {
    if path.get_ident().is_some() {
        return quote!(::sidestep_kit::needs::#path);
    }
    let tokens = path.to_token_stream().into_iter();
    tokens
        .map(|mut token| {
            token.set_span(Span::call_site().located_at(token.span()));
            token
        })
        .collect()
}
