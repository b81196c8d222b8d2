//! Every route of the service, called by everybody: see [`testkit::matrix`].
use crate::bed::Bed;
use testkit::matrix::{Somebody, violations};

#[tokio::test]
async fn nobody_gets_where_they_should_not() {
    let bed = Bed::start().await;
    for version in ["3.0", "3.70"] {
        let at = |client: testkit::Client| client.header("OpenStack-API-Version", &format!("volume {version}"));
        let people = [
            Somebody { name: "nobody", client: at(bed.cloud.anonymous()) },
            Somebody { name: "a reader", client: at(bed.cloud.user("demo", "reader").await) },
            Somebody { name: "a member", client: at(bed.cloud.member("demo").await) },
            Somebody { name: "the administrator", client: at(bed.cloud.admin().await) },
        ];
        let routes: Vec<_> = bed.cloud.routes.iter().filter(|r| r.path.starts_with("/volume")).cloned().collect();
        assert!(routes.len() > 100, "{} routes", routes.len());
        let wrong = violations(&routes, &people).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
