// An HTTP server that plays answers with given delays and records when it really wrote each piece:
// the reference for what a load-test client measures. Knows nothing of the client's code.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tessera::testing {

/// Bytes of an answer, written `delay_ms` after the piece before it was due.
struct FakePiece {
  double delay_ms = 0.0;
  std::shared_ptr<const std::string> bytes;
  bool is_content = false;  ///< its write is recorded
};

struct FakeRequest {
  int64_t index = -1;  ///< the number at the end of X-Request-Id
  std::string head;
  std::string body;
  int64_t wanted_tokens = 0;  ///< max_tokens or max_completion_tokens
};

struct FakeAnswer {
  std::vector<FakePiece> pieces;
  bool is_closed_after = false;
};

struct FakeWrites {
  int64_t index = -1;
  std::chrono::steady_clock::time_point received;              ///< the whole request
  std::vector<std::chrono::steady_clock::time_point> content;  ///< just before each write
};

/// Makes the answer to a request; on the server's thread.
using FakeBehaviour = std::function<FakeAnswer(const FakeRequest& request)>;

class FakeSseServer final {
 public:
  /// Listens on loopback; a thread of its own. GET is answered with a list of one model, "fake".
  /// `port` 0: any free one.
  explicit FakeSseServer(FakeBehaviour behaviour, uint16_t port = 0);
  ~FakeSseServer();
  FakeSseServer(const FakeSseServer&) = delete;
  FakeSseServer& operator=(const FakeSseServer&) = delete;

  [[nodiscard]] uint16_t port() const noexcept;
  [[nodiscard]] std::string url() const;
  /// Ends the thread; what was written. Once.
  [[nodiscard]] std::vector<FakeWrites> stop();

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

/// One chunk of a chunked body.
[[nodiscard]] std::string http_chunk(const std::string& payload);
/// Status line and headers of a chunked event stream.
[[nodiscard]] std::string stream_head();
/// A whole response with a length.
[[nodiscard]] std::string plain_response(const std::string& status,
                                         const std::string& type,
                                         const std::string& body);

/// A chat answer as servers send it: role, one event a token after these delays, the reason of the
/// end, usage, [DONE].
[[nodiscard]] FakeAnswer chat_answer(const std::vector<double>& delays_ms);

}  // namespace tessera::testing
