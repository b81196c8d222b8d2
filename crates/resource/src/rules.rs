//! The typed part of a resource: what one field alone cannot say.
use crate::{Cx, Error, Map, Object, Owner, Reader, Resource, ResourceDef, Result, Tx};
use serde_json::Value;

/// What a delete does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The row goes in this transaction.
    Now,
    /// The row stays, marked `deleting`, until a reconciler has cleaned up and removes it.
    Later,
}

/// All have defaults. They run inside the request's transaction, may run several times, and must have no effects outside of `tx`.
pub trait Rules: Resource {
    /// Completes and admits a new row.
    fn create(_row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        Ok(())
    }
    /// Admits a change; `row` is already changed.
    fn update(_row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        Ok(())
    }
    /// Admits a deletion and says when the row goes.
    fn delete(_row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<Deletion> {
        Ok(Deletion::Now)
    }
    /// Adds computed fields to what is shown. `row` is the stored form.
    fn view(_row: &Map, _out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {}
    /// May the caller see the row? What one may not see is 404.
    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        owned(Self::DEF, row, cx)
    }
    /// Do its unique values keep others from having them? No for rows of which others chose the names.
    fn claims(_row: &Map) -> bool {
        true
    }
    /// A filter that is not a plain field; `None` means that this resource does not know it.
    fn filter(_row: &Map, _key: &str, _values: &[&str], _cx: &Cx) -> Option<bool> {
        None
    }
}

/// The default of [`Rules::visible`]: the owner, or an administrator.
pub fn owned(def: &ResourceDef, row: &Map, cx: &Cx) -> bool {
    let is = |field: &str, want: Option<&str>| want.is_some() && row.get(field).and_then(Value::as_str) == want;
    match def.owner {
        Owner::None => true,
        Owner::Project => is("project_id", cx.caller.project_id()) || cx.is_admin(),
        Owner::Domain => is("domain_id", cx.caller.domain_id()) || cx.is_admin(),
        Owner::User => is("user_id", Some(cx.caller.user_id())) || cx.is_admin(),
    }
}

type Rule1 = fn(&mut Map, &Cx, &mut Tx<'_>) -> Result<()>;

/// [`Rules`] without the type: what the engine calls.
#[derive(Clone, Copy)]
pub struct Hooks {
    pub create: Rule1,
    pub update: fn(&mut Map, &Map, &Cx, &mut Tx<'_>) -> Result<()>,
    pub delete: fn(&mut Map, &Cx, &mut Tx<'_>) -> Result<Deletion>,
    pub view: fn(&Map, &mut Map, &Cx, &Reader<'_>),
    pub visible: fn(&Map, &Cx, &Reader<'_>) -> bool,
    pub claims: fn(&Map) -> bool,
    pub filter: fn(&Map, &str, &[&str], &Cx) -> Option<bool>,
}

fn typed<T: Resource>(row: &Map) -> Result<Object<T>> {
    // A part that no kind describes (an object in a list) is checked by its type: the caller learns what serde said.
    Object::from_map(row.clone()).map_err(|e| {
        let reason = e.context.unwrap_or_default();
        let reason = reason.strip_prefix(T::DEF.table.name).map_or(reason.as_str(), |r| r.trim_start_matches(": "));
        Error::bad_request(format!("Invalid input for {}. Reason: {reason}.", T::DEF.name))
    })
}

impl Hooks {
    pub const fn of<T: Rules>() -> Self {
        Self {
            create: |row, cx, tx| {
                let mut object = typed::<T>(row)?;
                T::create(&mut object, cx, tx)?;
                *row = object.into_map()?;
                Ok(())
            },
            update: |row, old, cx, tx| {
                let mut object = typed::<T>(row)?;
                T::update(&mut object, &Object::from_map(old.clone())?, cx, tx)?;
                *row = object.into_map()?;
                Ok(())
            },
            delete: |row, cx, tx| {
                let mut object: Object<T> = Object::from_map(row.clone())?;
                let deletion = T::delete(&mut object, cx, tx)?;
                *row = object.into_map()?;
                Ok(deletion)
            },
            view: T::view,
            visible: T::visible,
            claims: T::claims,
            filter: T::filter,
        }
    }
}
