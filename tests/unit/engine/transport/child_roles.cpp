// What the child processes of the transport tests do.
#include <memory>
#include <mutex>
#include <sstream>
#include <string>

#include "engine/base/check.h"
#include "engine/transport/ucx_transport.h"
#include "tests/unit/engine/transport/child_process.h"

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
    lines_.write("landed " + std::to_string(key.request.low));
  }
  void on_connection_failed(int32_t /*rank*/,
                            uint64_t /*connection*/,
                            const Status& /*status*/) override {
    lines_.write("connection_failed");
  }

 private:
  LineChannel& lines_;
};

/// The next command, waiting as long as the parent lives.
std::string next_command(LineChannel& lines) {
  return lines.read(std::chrono::minutes(10));
}

}  // namespace

// Arguments: image bytes, number of blocks, seed, faults. Commands: connect REGION, send KEY FIRST
// COUNT, abort KEY, disconnect PEER, exit. Block i of the memory holds image i of the seed.
int run_sender_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const auto image_bytes = static_cast<size_t>(std::stoll(arguments.at(0)));
  const int32_t num_blocks = std::stoi(arguments.at(1));
  const uint64_t seed = std::stoull(arguments.at(2));
  SenderOptions options;
  options.self_test_bytes = 0;
  options.faults = parse_transport_faults(arguments.at(3)).value();
  std::vector<char> memory(image_bytes * static_cast<size_t>(num_blocks));
  for (int32_t i = 0; i < num_blocks; ++i) {
    fill_image(
        std::span(memory).subspan(static_cast<size_t>(i) * image_bytes, image_bytes), seed, i);
  }
  SenderEvents events(lines);
  const std::unique_ptr<KvSender> sender = create_ucx_sender(options, events).value();
  TESSERA_CHECK(sender->register_memory(memory.data(), static_cast<int64_t>(memory.size())).is_ok(),
                "register");
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
                           &memory[static_cast<size_t>(i) * image_bytes],
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

// Arguments: image bytes, number of blocks, faults. Commands: open, expect CONNECTION KEY COUNT,
// exit. Writes the region after open.
int run_receiver_child(int fd, const std::vector<std::string>& arguments) {
  LineChannel lines(fd);
  const int64_t image_bytes = std::stoll(arguments.at(0));
  const int64_t num_blocks = std::stoll(arguments.at(1));
  ReceiverOptions options;
  options.faults = parse_transport_faults(arguments.at(2)).value();
  std::vector<std::byte> memory(static_cast<size_t>(image_bytes * num_blocks));
  ReceiverEvents events(lines);
  const std::unique_ptr<KvReceiver> receiver =
      create_ucx_receiver(options, 0, {memory.data(), image_bytes, image_bytes, num_blocks}, events)
          .value();
  while (true) {
    std::istringstream in(next_command(lines));
    std::string verb;
    in >> verb;
    if (verb == "open") {
      lines.write(to_text(receiver->open().value()));
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
    } else {
      return 0;
    }
  }
}

}  // namespace tessera
