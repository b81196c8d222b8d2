//! `#[derive(Resource)]`: turns one annotated struct into one `static` table.
//!
//! It emits data, never logic: `cargo expand` of a resource is a page of constants. The attributes are described in
//! `docs/guides/add-a-resource.md`.
use proc_macro::TokenStream;
use quote::quote;
use syn::{
    Attribute, Expr, ExprLit, Fields, ItemStruct, Lit, LitInt, LitStr, Meta, meta::ParseNestedMeta, parse_macro_input,
    spanned::Spanned,
};

#[proc_macro_derive(Resource, attributes(resource, policy, field))]
pub fn resource(input: TokenStream) -> TokenStream {
    let item = parse_macro_input!(input as ItemStruct);
    expand(&item).unwrap_or_else(|e| e.to_compile_error()).into()
}

type Tokens = proc_macro2::TokenStream;

fn doc(attrs: &[Attribute]) -> String {
    let lines = attrs.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        Meta::NameValue(nv) => match &nv.value {
            Expr::Lit(ExprLit { lit: Lit::Str(s), .. }) => Some(s.value().trim().to_owned()),
            _ => None,
        },
        Meta::Path(_) | Meta::List(_) => None,
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn text(m: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    m.value()?.parse()
}

fn opt(v: Option<&LitStr>) -> Tokens {
    v.map_or_else(|| quote!(None), |v| quote!(Some(#v)))
}

#[derive(Default)]
struct Head {
    service: Option<LitStr>,
    path: Option<LitStr>,
    name: Option<LitStr>,
    plural: Option<LitStr>,
    table: Option<LitStr>,
    quota: Option<LitStr>,
    owner: Option<LitStr>,
    id: Option<LitStr>,
    unique: Vec<LitStr>,
    indexes: Vec<LitStr>,
    stamps: bool,
    detail: bool,
    extras: bool,
    story: bool,
    shows_deleting: bool,
    rules: Vec<Tokens>,
}

const ACTIONS: [&str; 5] = ["list", "show", "create", "update", "delete"];

fn head(item: &ItemStruct) -> syn::Result<Head> {
    let mut h = Head::default();
    for a in &item.attrs {
        if a.path().is_ident("resource") {
            a.parse_nested_meta(|m| {
                let key = m.path.require_ident()?.to_string();
                match key.as_str() {
                    "service" => h.service = Some(text(&m)?),
                    "path" => h.path = Some(text(&m)?),
                    "name" => h.name = Some(text(&m)?),
                    "plural" => h.plural = Some(text(&m)?),
                    "table" => h.table = Some(text(&m)?),
                    "quota" => h.quota = Some(text(&m)?),
                    "owner" => h.owner = Some(text(&m)?),
                    "id" => h.id = Some(text(&m)?),
                    "unique" => h.unique.push(text(&m)?),
                    "index" => h.indexes.push(text(&m)?),
                    "stamps" => h.stamps = true,
                    "detail" => h.detail = true,
                    "extras" => h.extras = true,
                    "story" => h.story = true,
                    "shows_deleting" => h.shows_deleting = true,
                    _ => return Err(m.error("unknown #[resource] key")),
                }
                Ok(())
            })?;
        } else if a.path().is_ident("policy") {
            a.parse_nested_meta(|m| {
                let action = m.path.require_ident()?.to_string();
                if !ACTIONS.contains(&action.as_str()) {
                    return Err(m.error("expected list, show, create, update or delete"));
                }
                let rule = text(&m)?;
                h.rules.push(quote!((#action, #rule)));
                Ok(())
            })?;
        }
    }
    Ok(h)
}

fn serde_name(attrs: &[Attribute]) -> syn::Result<Option<String>> {
    let mut name = None;
    for a in attrs.iter().filter(|a| a.path().is_ident("serde")) {
        a.parse_nested_meta(|m| {
            if m.path.is_ident("rename") {
                name = Some(text(&m)?.value());
            } else if m.input.peek(syn::Token![=]) {
                m.value()?.parse::<Expr>()?;
            }
            Ok(())
        })?;
    }
    Ok(name)
}

struct Row {
    name: String,
    tokens: Tokens,
    index: bool,
}

fn field(f: &syn::Field) -> syn::Result<Row> {
    let ident = f.ident.as_ref().ok_or_else(|| syn::Error::new(f.span(), "a resource needs named fields"))?;
    let name = serde_name(&f.attrs)?.unwrap_or_else(|| ident.to_string());
    let ty = &f.ty;
    let mut flags: Vec<&str> = Vec::new();
    let (mut default, mut policy, mut read_policy) = (quote!(None), None, None);
    let (mut kind, mut min, mut max) = (quote!(<#ty as resource::FieldType>::KIND), None::<LitInt>, None::<LitInt>);
    let (mut since, mut until) = (quote!(resource::Version::MIN), quote!(resource::Version::MAX));
    for a in f.attrs.iter().filter(|a| a.path().is_ident("field")) {
        a.parse_nested_meta(|m| {
            let key = m.path.require_ident()?.to_string();
            match key.as_str() {
                "create" => flags.push("create"),
                "update" => flags.push("update"),
                "required" => flags.push("required"),
                "filter" => flags.push("filter"),
                "sort" => flags.push("sort"),
                "brief" => flags.push("brief"),
                "hidden" => flags.push("hidden"),
                "index" => flags.push("index"),
                "policy" => policy = Some(text(&m)?),
                "read_policy" => read_policy = Some(text(&m)?),
                "kind" => {
                    let k: Expr = m.value()?.parse()?;
                    kind = quote!(#k);
                }
                "min" => min = Some(m.value()?.parse()?),
                "max" => max = Some(m.value()?.parse()?),
                "default" => {
                    let v: Expr = m.value()?.parse()?;
                    default = quote!(Some(|| resource::json(#v)));
                }
                "since" => {
                    let v = text(&m)?;
                    since = quote!(resource::Version::of(#v));
                }
                "until" => {
                    let v = text(&m)?;
                    until = quote!(resource::Version::of(#v));
                }
                _ => return Err(m.error("unknown #[field] key")),
            }
            Ok(())
        })?;
    }
    if min.is_some() || max.is_some() {
        let bound = |b: Option<LitInt>| b.map_or_else(|| quote!(None), |b| quote!(Some(#b)));
        let (lo, hi) = (bound(min), bound(max));
        kind = quote!((#kind).within(#lo, #hi));
    }
    let has = |flag: &str| flags.contains(&flag);
    let (create, update, required) = (has("create"), has("update"), has("required"));
    let (filter, sort, brief, hidden) = (has("filter"), has("sort"), has("brief"), has("hidden"));
    let (policy, read_policy, help) = (opt(policy.as_ref()), opt(read_policy.as_ref()), doc(&f.attrs));
    let tokens = quote!(resource::FieldDef {
        name: #name, help: #help, kind: #kind, create: #create, update: #update, required: #required,
        filter: #filter, sort: #sort, brief: #brief, hidden: #hidden, default: #default,
        policy: #policy, read_policy: #read_policy, since: #since, until: #until,
    });
    Ok(Row { name, tokens, index: has("index") })
}

fn expand(item: &ItemStruct) -> syn::Result<Tokens> {
    let ty = &item.ident;
    let h = head(item)?;
    let missing = |what: &str| syn::Error::new(ty.span(), format!("missing #[resource({what} = \"...\")]"));
    let service = h.service.ok_or_else(|| missing("service"))?.value();
    let path = h.path.ok_or_else(|| missing("path"))?.value();
    let name = h.name.map_or_else(|| snake(&ty.to_string()), |n| n.value());
    let plural = h.plural.map_or_else(|| path.rsplit('/').next().unwrap_or_default().replace('-', "_"), |p| p.value());
    let table = format!("{service}/{}", h.table.map_or_else(|| plural.clone(), |t| t.value()));
    let Fields::Named(named) = &item.fields else {
        return Err(syn::Error::new(ty.span(), "a resource needs named fields"));
    };
    let rows = named.named.iter().map(field).collect::<syn::Result<Vec<_>>>()?;
    let owner = match h.owner.as_ref().map(LitStr::value).as_deref() {
        None => quote!(None),
        Some("project") => quote!(Project),
        Some("domain") => quote!(Domain),
        Some("user") => quote!(User),
        Some(_) => return Err(syn::Error::new(ty.span(), "owner is project, domain or user")),
    };
    let id = match h.id.as_ref().map(LitStr::value).as_deref() {
        None | Some("uuid") => quote!(Uuid),
        Some("hex") => quote!(Hex),
        Some("given") => quote!(Given),
        Some(_) => return Err(syn::Error::new(ty.span(), "id is uuid, hex or given")),
    };
    let mut indexes = vec![("project_id".to_owned(), "/project_id".to_owned())];
    indexes.extend(rows.iter().filter(|r| r.index && r.name != "project_id").map(|r| (r.name.clone(), format!("/{}", r.name))));
    // `name:/path/*/inside`, for what is not a field by itself.
    for i in &h.indexes {
        let v = i.value();
        let (n, p) = v.split_once(':').ok_or_else(|| syn::Error::new(i.span(), "expected \"name:/path\""))?;
        indexes.push((n.to_owned(), p.to_owned()));
    }
    let indexes = indexes.iter().map(|(n, p)| quote!(resource::Index { name: #n, path: #p }));
    let unique = h.unique.iter().map(|u| {
        let parts: Vec<String> = u.value().split(',').map(|p| p.trim().to_owned()).collect();
        quote!(&[#(#parts),*])
    });
    let (quota, help) = (opt(h.quota.as_ref()), doc(&item.attrs));
    let (stamps, detail, extras, story, shows_deleting) = (h.stamps, h.detail, h.extras, h.story, h.shows_deleting);
    let (rules, fields) = (h.rules, rows.iter().map(|r| &r.tokens));
    Ok(quote! {
        impl resource::Resource for #ty {
            const DEF: &'static resource::ResourceDef = &resource::ResourceDef {
                service: #service, name: #name, plural: #plural, path: #path, help: #help,
                table: resource::Table { name: #table, indexes: &[#(#indexes),*] },
                owner: resource::Owner::#owner, id: resource::IdForm::#id, quota: #quota,
                unique: &[#(#unique),*], stamps: #stamps, detail: #detail, extras: #extras, story: #story,
                shows_deleting: #shows_deleting,
                policy: &[#(#rules),*], fields: &[#(#fields),*],
                hooks: resource::Hooks::of::<#ty>(),
            };
        }
    })
}

fn snake(s: &str) -> String {
    let mut out = String::new();
    for (i, ch) in s.chars().enumerate() {
        if ch.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(ch.to_lowercase());
    }
    out
}
