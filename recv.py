import http.server, json, sys, time, threading
port, down = int(sys.argv[1]), float(sys.argv[2]); start=time.time()
seen={}; n=[0,0]
class H(http.server.BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def do_POST(self):
        body=self.rfile.read(int(self.headers['content-length']))
        if time.time()-start<down:
            n[1]+=1; self.send_response(503); self.send_header('content-length','0'); self.end_headers(); return
        n[0]+=1; seen[body]=seen.get(body,0)+1
        self.send_response(200); self.send_header('content-length','0'); self.end_headers()
    def do_GET(self):
        t=json.dumps({'taken':n[0],'distinct':len(seen),'refused':n[1]}).encode()
        self.send_response(200); self.send_header('content-length',str(len(t))); self.end_headers(); self.wfile.write(t)
    def log_message(self,*a): pass
class S(http.server.ThreadingHTTPServer): request_queue_size=1024
S(('127.0.0.1',port),H).serve_forever()
