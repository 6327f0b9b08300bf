#include "server/rpc/stream_writer.h"

#include <future>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

namespace tessera::rpc {
namespace {

class CountedStream final : public PostedStream {
 public:
  void write_posted() override { written.set_value(std::this_thread::get_id()); }
  std::promise<std::thread::id> written;
};

TEST(StreamWriterTest, WritesOnAThreadOfItsOwn) {
  StreamWriter writer;
  for (int i = 0; i < 3; ++i) {
    const auto stream = std::make_shared<CountedStream>();
    ASSERT_TRUE(writer.try_post(stream));
    EXPECT_NE(stream->written.get_future().get(), std::this_thread::get_id());
  }
}

TEST(StreamWriterTest, LetsGoOfWhatItHasWritten) {
  StreamWriter writer;
  auto stream = std::make_shared<CountedStream>();
  const std::weak_ptr<CountedStream> held = stream;
  auto written = stream->written.get_future();
  ASSERT_TRUE(writer.try_post(std::move(stream)));
  written.wait();
  writer.stop_blocking();
  EXPECT_TRUE(held.expired());
}

TEST(StreamWriterTest, TakesNothingOnceItHasStopped) {
  StreamWriter writer;
  writer.stop_blocking();
  EXPECT_FALSE(writer.try_post(std::make_shared<CountedStream>()));
}

}  // namespace
}  // namespace tessera::rpc
