//! Nova's old ways to other services, until 2.35: views of their rows in Nova's words. Nothing is stored here.
pub(crate) mod floating_ips;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod security_groups;

use api::Route;

pub(crate) fn routes() -> Vec<Route> {
    [floating_ips::routes(), images::routes(), networks::routes(), security_groups::routes()].concat()
}
