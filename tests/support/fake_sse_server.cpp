#include "tests/support/fake_sse_server.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

namespace tessera::testing {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr const char* kModels = R"({"object":"list","data":[{"id":"fake","object":"model"}]})";

std::shared_ptr<const std::string> share(std::string text) {
  return std::make_shared<const std::string>(std::move(text));
}

int64_t number_after(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + key.size());
}

std::string chat_event(const std::string& choice) {
  return "data: {\"id\":\"chatcmpl-6f2d1c9a8b7e4f30\",\"object\":\"chat.completion.chunk\","
         "\"created\":1767225600,\"model\":\"fake\",\"choices\":[" +
         choice + "]}\n\n";
}

FakeRequest parse_request(std::string head, std::string body) {
  FakeRequest request;
  request.index = number_after(head, "X-Request-Id: bench-");
  request.wanted_tokens = std::max(number_after(body, "\"max_tokens\":"),
                                   number_after(body, "\"max_completion_tokens\":"));
  request.head = std::move(head);
  request.body = std::move(body);
  return request;
}

/// What the connections share: the server's thread only.
struct Played {
  const FakeBehaviour& behaviour;
  std::vector<FakeWrites> writes;
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, Played& played)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), played_(played) {
    socket_.set_option(tcp::no_delay(true));
    socket_.non_blocking(true);
  }

  void read() {
    socket_.async_read_some(
        asio::buffer(bytes_),
        [self = shared_from_this()](const boost::system::error_code& error, size_t num_bytes) {
          if (error) {
            self->is_gone_ = true;
            return;
          }
          self->input_.append(self->bytes_.data(), num_bytes);
          if (!self->answer_if_whole()) {
            self->read();
          }
        });
  }

 private:
  bool answer_if_whole() {
    const size_t end = input_.find("\r\n\r\n");
    if (end == std::string::npos) {
      return false;
    }
    const auto length =
        static_cast<size_t>(std::max<int64_t>(number_after(input_, "Content-Length: "), 0));
    if (input_.size() < end + 4 + length) {
      return false;
    }
    const FakeRequest request =
        parse_request(input_.substr(0, end + 4), input_.substr(end + 4, length));
    input_.clear();
    if (request.head.starts_with("GET ")) {
      answer_ = {
          .pieces = {{.bytes = share(plain_response("200 OK", "application/json", kModels))}},
          .is_closed_after = true};
    } else {
      answer_ = played_.behaviour(request);
    }
    next_ = 0;
    due_ = Clock::now();
    writes_ = {.index = request.index, .received = due_, .content = {}};
    play();
    return true;
  }

  /// Writes what is due, waits for what is not.
  void play() {
    while (next_ < answer_.pieces.size()) {
      const FakePiece& piece = answer_.pieces[next_];
      const auto delay = std::chrono::duration<double, std::milli>(piece.delay_ms);
      const Clock::time_point due = due_ + std::chrono::duration_cast<Clock::duration>(delay);
      if (due > Clock::now()) {
        wait(due);
        return;
      }
      due_ = due;
      ++next_;
      if (!write(piece)) {
        return;
      }
    }
    end();
  }
  void wait(Clock::time_point due) {
    timer_.expires_at(due);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->is_gone_) {
        self->play();
      }
    });
  }
  bool write(const FakePiece& piece) {
    if (piece.is_content) {
      writes_.content.push_back(Clock::now());
    }
    boost::system::error_code error;
    asio::write(socket_, asio::buffer(*piece.bytes), error);
    return !error;
  }
  void end() {
    played_.writes.push_back(std::move(writes_));
    if (answer_.is_closed_after) {
      boost::system::error_code ignored;
      socket_.shutdown(tcp::socket::shutdown_both, ignored);
      socket_.close(ignored);
      return;
    }
    read();
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  Played& played_;
  std::array<char, 16384> bytes_{};
  std::string input_;
  FakeAnswer answer_;
  FakeWrites writes_;
  size_t next_ = 0;
  Clock::time_point due_;
  bool is_gone_ = false;
};

}  // namespace

class FakeSseServer::Core final {
 public:
  Core(FakeBehaviour behaviour, uint16_t port)
      : behaviour_(std::move(behaviour)),
        acceptor_(loop_, tcp::endpoint(asio::ip::address_v4::loopback(), port)) {
    accept();
    thread_ = std::jthread([this] { loop_.run(); });
  }
  ~Core() { stop(); }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  [[nodiscard]] uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void stop() {
    loop_.stop();
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  [[nodiscard]] std::vector<FakeWrites> take_writes() { return std::move(played_.writes); }

 private:
  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, tcp::socket socket) {
      if (!error) {
        std::make_shared<Connection>(std::move(socket), played_)->read();
      }
      accept();
    });
  }

  const FakeBehaviour behaviour_;
  Played played_{behaviour_, {}};
  asio::io_context loop_{1};
  tcp::acceptor acceptor_;
  std::jthread thread_;
};

FakeSseServer::FakeSseServer(FakeBehaviour behaviour, uint16_t port)
    : core_(std::make_unique<Core>(std::move(behaviour), port)) {}

FakeSseServer::~FakeSseServer() = default;

uint16_t FakeSseServer::port() const noexcept {
  return core_->port();
}

std::string FakeSseServer::url() const {
  return "http://127.0.0.1:" + std::to_string(port());
}

std::vector<FakeWrites> FakeSseServer::stop() {
  core_->stop();
  return core_->take_writes();
}

std::string http_chunk(const std::string& payload) {
  std::array<char, 24> size{};
  std::snprintf(size.data(), size.size(), "%zx\r\n", payload.size());
  return size.data() + payload + "\r\n";
}

std::string stream_head() {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
         "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
}

std::string plain_response(const std::string& status,
                           const std::string& type,
                           const std::string& body) {
  return "HTTP/1.1 " + status + "\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

FakeAnswer chat_answer(const std::vector<double>& delays_ms) {
  static const auto role =
      share(stream_head() +
            http_chunk(chat_event(
                R"({"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null})")));
  static const auto token = share(
      http_chunk(chat_event(R"({"index":0,"delta":{"content":" word"},"finish_reason":null})")));
  const std::string usage =
      "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
      "\"completion_tokens\":" +
      std::to_string(delays_ms.size()) + "}}\n\n";
  // In one write with the last token, so that a single time is the answer's end.
  const auto last =
      share(*token + http_chunk(chat_event(R"({"index":0,"delta":{},"finish_reason":"length"})")) +
            http_chunk(usage) + http_chunk("data: [DONE]\n\n") + "0\r\n\r\n");
  FakeAnswer answer;
  // The role goes with the first token, as servers should send it: some clients count from there.
  answer.pieces.push_back({.delay_ms = delays_ms.at(0), .bytes = role, .is_content = false});
  for (size_t i = 0; i < delays_ms.size(); ++i) {
    answer.pieces.push_back({.delay_ms = i == 0 ? 0.0 : delays_ms[i],
                             .bytes = i + 1 == delays_ms.size() ? last : token,
                             .is_content = true});
  }
  return answer;
}

}  // namespace tessera::testing
