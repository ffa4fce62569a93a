//! Workers with only the rights in `deploy/`.

use flowcast::sandbox::Behaviour;

use crate::fleet::{Fleet, until};
use crate::servers::{DURABLE, RabbitProcess, RedisProcess};
use crate::support::{World, phone, sandbox};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_works_with_the_least_rights() {
    let redis = RedisProcess::start(&format!("{DURABLE} --aclfile {ROOT}/deploy/redis/users.acl"));
    let rabbit = RabbitProcess::start();
    let permissions = std::fs::read_to_string(format!("{ROOT}/deploy/rabbitmq/permissions.json")).unwrap();
    let amqp = rabbit.url_of_user(&permissions);
    let address = redis.url().replace("redis://", "redis://flowcast:change-me@");
    // The provider rejects some messages, so that there is something to retry.
    let behaviour = Behaviour { accept_rate: 0.9, ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    let fleet = Fleet::on(World::new(2_000), &address, &amqp, &url, "");
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.ok(&["suppress", "add", &phone(7)]).await;
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["skipped"], 1, "{status}");
    let rejected = status["counts"]["rejected"].as_u64().unwrap();
    assert!(rejected > 0 && sandbox.count() > 1_000, "{status}");
    for args in [&["pause", "c1"][..], &["retry", "c1"], &["campaigns"], &["dead", "list"], &["report", "c1"]]
    {
        let ended = fleet.world.run(args).await;
        assert!(!ended.err.contains("NOPERM") && !ended.err.contains("ACCESS_REFUSED"), "{args:?} {ended:?}");
    }
    until("the rejected messages to be sent again", || {
        fleet.world.report("c1").iter().any(|line| line["attempts"] == 2)
    })
    .await;
    let doctor = fleet.world.run(&["doctor"]).await;
    assert!(doctor.out.contains("its settings cannot be read"), "{}", doctor.out);
    assert!(!doctor.out.contains("ACCESS_REFUSED"), "{}", doctor.out);
    let log = fleet.log();
    assert!(!log.contains("NOPERM") && !log.contains("ACCESS_REFUSED"), "{log}");

    // The password of the user allows nothing else.
    let client = redis::Client::open(address).unwrap();
    let mut connection = client.get_connection().unwrap();
    for refused in
        [&["FLUSHALL"][..], &["CONFIG", "SET", "dir", "/tmp"], &["SET", "other", "1"], &["KEYS", "*"]]
    {
        let mut command = redis::cmd(refused[0]);
        command.arg(&refused[1..]);
        let result = command.query::<redis::Value>(&mut connection);
        assert!(result.is_err_and(|error| error.code() == Some("NOPERM")), "{refused:?}");
    }
}
