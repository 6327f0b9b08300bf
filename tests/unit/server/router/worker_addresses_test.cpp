#include "server/router/worker_addresses.h"

#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

namespace tessera::router {
namespace {

using Addresses = std::vector<std::string>;

WorkerSpec spec_of(const std::string& text) {
  auto spec = WorkerSpec::parse(text);
  EXPECT_TRUE(spec.is_ok()) << spec.status().to_string();
  return std::move(spec).value();
}

TEST(WorkerSpecTest, ReadsAddressesAndNames) {
  const WorkerSpec spec = spec_of("10.0.0.1:9000, [::1]:9001,dns:decode.svc:9002");
  EXPECT_EQ(spec.addresses, (Addresses{"10.0.0.1:9000", "[::1]:9001"}));
  ASSERT_EQ(spec.names.size(), 1U);
  EXPECT_EQ(spec.names[0].name, "decode.svc");
  EXPECT_EQ(spec.names[0].port, "9002");
  EXPECT_TRUE(spec_of("").addresses.empty());
}

TEST(WorkerSpecTest, NamesTheEntryThatIsWrong) {
  for (const char* text : {"host",
                           "host:",
                           ":9000",
                           "host:0",
                           "host:65536",
                           "host:9x",
                           "dns:a",
                           "a:1,,b:2",
                           "a:1,b"}) {
    const auto spec = WorkerSpec::parse(text);
    EXPECT_EQ(spec.status().code(), StatusCode::kInvalidArgument) << text;
  }
  EXPECT_NE(WorkerSpec::parse("a:1,bad").status().message().find("\"bad\""), std::string::npos);
}

TEST(AddressBookTest, FollowsANameAndKeepsItsAddressesWhenItFails) {
  Result<Addresses> answer = Addresses{"1.1.1.1:9", "2.2.2.2:9"};
  AddressBook book(spec_of("static:1,dns:name:9"), [&answer](const DnsName& name) {
    EXPECT_EQ(name.name, "name");
    return answer;
  });
  EXPECT_EQ(book.refresh_blocking(), (Addresses{"static:1", "1.1.1.1:9", "2.2.2.2:9"}));
  answer = unavailable("no server");
  EXPECT_EQ(book.refresh_blocking(), (Addresses{"static:1", "1.1.1.1:9", "2.2.2.2:9"}));
  answer = Addresses{"2.2.2.2:9", "3.3.3.3:9"};
  EXPECT_EQ(book.refresh_blocking(), (Addresses{"static:1", "2.2.2.2:9", "3.3.3.3:9"}));
}

TEST(AddressBookTest, NamesEachAddressOnce) {
  AddressBook book(spec_of("1.1.1.1:9,dns:a:9,dns:b:9"), [](const DnsName&) {
    return Addresses{"1.1.1.1:9", "2.2.2.2:9"};
  });
  EXPECT_EQ(book.refresh_blocking(), (Addresses{"1.1.1.1:9", "2.2.2.2:9"}));
}

TEST(AddressBookTest, BoundsTheNumberOfWorkers) {
  Addresses many;
  for (size_t i = 0; i < kMaxWorkersPerRole + 10; ++i) {
    many.push_back("h" + std::to_string(i) + ":1");
  }
  AddressBook book(spec_of("dns:a:1"), [&many](const DnsName&) { return many; });
  EXPECT_EQ(book.refresh_blocking().size(), kMaxWorkersPerRole);
}

TEST(ResolverTest, FindsTheLoopbackAddress) {
  const auto addresses = resolve_with_getaddrinfo_blocking({"127.0.0.1", "9000"});
  ASSERT_TRUE(addresses.is_ok()) << addresses.status().to_string();
  EXPECT_EQ(addresses.value(), Addresses{"127.0.0.1:9000"});
  const auto six = resolve_with_getaddrinfo_blocking({"::1", "9000"});
  ASSERT_TRUE(six.is_ok()) << six.status().to_string();
  EXPECT_EQ(six.value(), Addresses{"[::1]:9000"});
}

TEST(AddressWatcherTest, ResolvesAgainAndAgainUntilItIsDestroyed) {
  std::mutex mutex;
  std::condition_variable changed;
  int num_reports = 0;
  int num_static_reports = 0;
  {
    const AddressWatcher watcher(
        AddressBook(spec_of("dns:a:1"), [](const DnsName&) { return Addresses{"1.1.1.1:1"}; }),
        AddressBook(spec_of("b:1"), {}),
        std::chrono::milliseconds(1),
        [&](WorkerRole role, Addresses) {
          const std::lock_guard lock(mutex);
          ++(role == WorkerRole::kPrefill ? num_reports : num_static_reports);
          changed.notify_one();
        });
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return num_reports >= 3; }));
  }
  EXPECT_EQ(num_static_reports, 1);
}

}  // namespace
}  // namespace tessera::router
