// What the child processes of the transport tests do.
#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>

#include "engine/base/check.h"
#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_link.h"
#include "engine/transport/ucx_transport.h"
#include "tests/unit/engine/transport/child_process.h"
#include "tests/unit/engine/transport/role_memory.h"

namespace tessera {
namespace {

HandoffKey key_of(uint64_t low) {
  return {{1, low}, 1};
}

class SenderEvents final : public KvSender::Listener {
 public:
  explicit SenderEvents(LineChannel& lines) : lines_(lines) {}
  void on_connected(PeerId peer) override { lines_.write("connected " + std::to_string(peer)); }
  void on_acked(PeerId /*peer*/, const HandoffKey& key, int64_t count) override {
    num_acked_ += count;
    lines_.write("acked " + std::to_string(key.request.low) + " " + std::to_string(num_acked_));
  }
  void on_drained(PeerId /*peer*/, const HandoffKey& key) override {
    lines_.write("drained " + std::to_string(key.request.low));
  }
  void on_parcel_failed(PeerId /*peer*/, const HandoffKey& key, const Status& /*status*/) override {
    lines_.write("parcel_failed " + std::to_string(key.request.low));
  }
  void on_peer_failed(PeerId peer, const Status& /*status*/) override {
    lines_.write("peer_failed " + std::to_string(peer));
  }
  void on_disconnected(PeerId peer) override {
    lines_.write("disconnected " + std::to_string(peer));
  }

 private:
  LineChannel& lines_;
  int64_t num_acked_ = 0;
};

class ReceiverEvents final : public KvReceiver::Listener {
 public:
  explicit ReceiverEvents(LineChannel& lines) : lines_(lines) {}
  void on_landed(int32_t /*rank*/, const HandoffKey& key) override {
    {
      const std::lock_guard lock(mutex_);
      ++num_landed_;
    }
    lines_.write("landed " + std::to_string(key.request.low));
  }
  void on_connection_failed(int32_t /*rank*/,
                            uint64_t /*connection*/,
                            const Status& /*status*/) override {
    lines_.write("connection_failed");
  }
  /// What has landed may be looked at after this.
  [[nodiscard]] int num_landed() {
    const std::lock_guard lock(mutex_);
    return num_landed_;
  }

 private:
  LineChannel& lines_;
  std::mutex mutex_;
  int num_landed_ = 0;
};

std::string memory_kind(const std::vector<std::string>& arguments, size_t index) {
  return arguments.size() > index ? arguments[index] : "host";
}

/// The next command, waiting as long as the parent lives.
std::string next_command(LineChannel& lines) {
  return lines.read(std::chrono::minutes(10));
}

}  // namespace

// Arguments: image bytes, number of blocks, seed, faults, memory. Commands: connect REGION, send
// KEY FIRST COUNT, abort KEY, disconnect PEER, exit. Block i of the memory holds image i of the
// seed.
static int run_sender_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const auto image_bytes = static_cast<size_t>(std::stoll(arguments.at(0)));
  const int32_t num_blocks = std::stoi(arguments.at(1));
  const uint64_t seed = std::stoull(arguments.at(2));
  SenderOptions options;
  options.self_test_bytes = 0;
  options.faults = parse_transport_faults(arguments.at(3)).value();
  options.allow_staged_handoff = arguments.size() > 5;
  const int64_t num_bytes = static_cast<int64_t>(image_bytes) * num_blocks;
  RoleMemory memory(memory_kind(arguments, 4), num_bytes);
  std::vector<char> image(image_bytes);
  for (int32_t i = 0; i < num_blocks; ++i) {
    fill_image(image, seed, i);
    memory.write(static_cast<int64_t>(image_bytes) * i, image);
  }
  SenderEvents events(lines);
  Result<std::unique_ptr<KvSender>> made = create_ucx_sender(options, events, memory.mover());
  if (!made.is_ok()) {
    lines.write("refused " + std::string(status_code_name(made.status().code())));
    return 0;
  }
  const std::unique_ptr<KvSender> sender = std::move(made).value();
  TESSERA_CHECK(sender->register_memory(memory.data(), num_bytes).is_ok(), "register");
  PeerId peer = 0;
  while (true) {
    const std::string line = next_command(lines);
    std::istringstream in(line);
    std::string verb;
    uint64_t low = 0;
    in >> verb;
    if (verb == "connect") {
      peer = sender->connect({region_from(line.substr(verb.size() + 1))});
    } else if (verb == "send") {
      int32_t first = 0;
      int32_t count = 0;
      in >> low >> first >> count;
      std::vector<Parcel> parcels;
      for (int32_t i = first; i < first + count; ++i) {
        parcels.push_back({key_of(low),
                           0,
                           i,
                           memory.data() + (static_cast<int64_t>(image_bytes) * i),
                           static_cast<int64_t>(image_bytes)});
      }
      sender->send(peer, std::move(parcels));
    } else if (verb == "abort") {
      in >> low;
      sender->abort(peer, key_of(low));
    } else if (verb == "disconnect") {
      sender->disconnect(peer);
    } else {
      return 0;
    }
  }
}

// Arguments: image bytes, number of blocks, faults, memory. Commands: open, close CONNECTION,
// expect CONNECTION KEY COUNT, count SEED BLOCKS, exit. Writes the region after open, how many of
// the first blocks hold their images after count.
static int run_receiver_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const int64_t image_bytes = std::stoll(arguments.at(0));
  const int64_t num_blocks = std::stoll(arguments.at(1));
  ReceiverOptions options;
  options.faults = parse_transport_faults(arguments.at(2)).value();
  options.max_regions = 4;
  RoleMemory memory(memory_kind(arguments, 3), image_bytes * num_blocks);
  ReceiverEvents events(lines);
  const std::unique_ptr<KvReceiver> receiver =
      create_ucx_receiver(
          options, 0, {memory.data(), image_bytes, image_bytes, num_blocks}, events, memory.mover())
          .value();
  while (true) {
    std::istringstream in(next_command(lines));
    std::string verb;
    in >> verb;
    if (verb == "open") {
      const Result<LandingRegion> region = receiver->open();
      lines.write(region.is_ok() ? to_text(region.value())
                                 : std::string(status_code_name(region.status().code())));
    } else if (verb == "close") {
      uint64_t connection = 0;
      in >> connection;
      const int64_t num_open = receiver->statistics().open_regions;
      receiver->close(connection);
      while (receiver->statistics().open_regions == num_open) {
        std::this_thread::yield();
      }
      lines.write("closed");
    } else if (verb == "expect") {
      uint64_t connection = 0;
      uint64_t low = 0;
      int32_t count = 0;
      in >> connection >> low >> count;
      std::vector<int32_t> blocks;
      for (int32_t i = 0; i < count; ++i) {
        blocks.push_back(i);
      }
      receiver->expect(connection, key_of(low), std::move(blocks));
      lines.write("expected");
    } else if (verb == "count") {
      uint64_t seed = 0;
      int32_t count = 0;
      in >> seed >> count;
      TESSERA_CHECK(events.num_landed() > 0, "count what has landed");
      int32_t num_held = 0;
      for (int32_t i = 0; i < count; ++i) {
        num_held += holds_image(memory.read(i * image_bytes, image_bytes), seed, i) ? 1 : 0;
      }
      lines.write("holds " + std::to_string(num_held));
    } else {
      return 0;
    }
  }
}

// Arguments: bytes, seed, memory. Command: put REGION. Puts image 0 of the seed into the region,
// writes something else over its own copy as soon as the put is complete, and says so.
static int run_put_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const int64_t num_bytes = std::stoll(arguments.at(0));
  RoleMemory memory(memory_kind(arguments, 2), num_bytes);
  std::vector<char> image(static_cast<size_t>(num_bytes));
  fill_image(image, std::stoull(arguments.at(1)), 0);
  memory.write(0, image);
  std::fill(image.begin(), image.end(), '\x7f');
  const bool is_cuda = memory.mover() != nullptr && memory.mover()->is_cuda();
  const auto context = UcxContext::create(is_cuda).value();
  const UcxMemory source = UcxMemory::create(context, memory.data(), num_bytes, is_cuda).value();
  const auto link = UcxLink::create(*context).value();
  const LandingRegion region = region_from(next_command(lines));
  TESSERA_CHECK(link->connect(region.worker_address).is_ok(), "connect");
  TESSERA_CHECK(link->import_remote_key(region.remote_key).is_ok(), "key");
  if (is_cuda) {
    link->set_cuda_sources();
  }
  link->put(memory.data(), num_bytes, region.base_address);
  bool is_done = false;
  link->flush([&is_done] { is_done = true; });
  while (!is_done && link->failure().is_ok()) {
    link->progress();
  }
  memory.write(0, image);
  lines.write(link->failure().is_ok() ? "poisoned" : "failed");
  lines.write(link->lane());
  static_cast<void>(next_command(lines));
  return 0;
}

// Arguments: bytes, seed, memory. Writes its region, then, when it is told to look, whether a copy
// of what lies there is image 0 of the seed.
static int run_target_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const int64_t num_bytes = std::stoll(arguments.at(0));
  RoleMemory memory(memory_kind(arguments, 2), 2 * num_bytes);
  const bool is_cuda = memory.mover() != nullptr && memory.mover()->is_cuda();
  const auto context = UcxContext::create(is_cuda).value();
  const UcxMemory target =
      UcxMemory::create(context, memory.data(), 2 * num_bytes, is_cuda).value();
  const auto link = UcxLink::create(*context).value();
  LandingRegion region;
  region.worker_address = link->address();
  region.remote_key = target.remote_key().value();
  region.base_address = reinterpret_cast<uint64_t>(memory.data());
  lines.write(to_text(region));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (lines.read(std::chrono::milliseconds(1)) != "look" &&
         std::chrono::steady_clock::now() < deadline) {
    link->progress();
  }
  if (memory.mover() != nullptr) {
    kernels::ImageMover& mover = *memory.mover();
    const kernels::ImageMover::Image copy{memory.data() + num_bytes, memory.data(), num_bytes};
    mover.see_remote_writes();
    static_cast<void>(mover.finish_blocking(mover.begin(std::span(&copy, 1))));
  } else {
    memory.write(num_bytes, memory.read(0, num_bytes));
  }
  const bool holds =
      holds_image(memory.read(num_bytes, num_bytes), std::stoull(arguments.at(1)), 0);
  lines.write(holds ? "whole" : "torn");
  return 0;
}

int run_child(int fd, const std::string& role, const std::vector<std::string>& arguments) {
  if (role == "sender") {
    return run_sender_child(fd, arguments);
  }
  if (role == "receiver") {
    return run_receiver_child(fd, arguments);
  }
  return role == "put" ? run_put_child(fd, arguments) : run_target_child(fd, arguments);
}

}  // namespace tessera
