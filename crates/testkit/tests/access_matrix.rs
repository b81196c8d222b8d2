//! Every route of every service, called by everybody: see [`testkit::matrix`].
use testkit::{TestCloud, matrix::Somebody};

#[tokio::test]
async fn nobody_gets_where_they_should_not() {
    let cloud = TestCloud::start().await;
    let people = [
        Somebody { name: "nobody", client: cloud.anonymous() },
        Somebody { name: "a reader", client: cloud.user("demo", "reader").await },
        Somebody { name: "a member", client: cloud.member("demo").await },
        Somebody { name: "a member of another project", client: cloud.member("other").await },
        Somebody { name: "the administrator", client: cloud.admin().await },
    ];
    assert!(cloud.routes.len() > 190, "{} routes", cloud.routes.len());
    let wrong = testkit::matrix::violations(&cloud.routes, &people).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
