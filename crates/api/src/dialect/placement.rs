//! Placement (api-ref `placement`).
use super::{Dialect, common_status, field_filters, title};
use base::Timestamp;
use resource::Listing;
use serde_json::json;

pub static PLACEMENT: Dialect = Dialect {
    name: "placement",
    wrapped: false,
    update_method: "PUT",
    created: 201,
    deleted: 204,
    bulk: false,
    error: |e, status, request_id| {
        let code = e.code.as_deref().unwrap_or("placement.undefined_code");
        let error =
            json!({"status": status, "title": title(status), "detail": e.message, "code": code, "request_id": request_id});
        (json!({"errors": [error]}), "application/json")
    },
    status: common_status,
    listing: |def, cx| Ok(Listing { filters: field_filters(def, cx, &[]), limit: usize::MAX, ..Listing::default() }),
    page: |_, _, _, _, _| {},
    decorate: |_, _, _, _| {},
    time: Timestamp::seconds_z,
    rule: |def, action| format!("placement:{}:{action}", def.plural),
};
